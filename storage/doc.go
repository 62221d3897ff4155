// Package storage is an object store for a cache on one disk, on top of Badger.
//
// # Layout
//
// The data folder holds
//
//	format          one line, "kaiku-store 3"; the store refuses a folder with another line
//	lock            flock'ed while a Store is open; holds the owner's process id
//	opening         names the segment that is being opened, and the try (see below)
//	purges/         a Badger of purge records
//	segments/PURGES up to which sequence these are on the disk (see Purges)
//	segments/N.C/   one Badger each; N counts up, eight decimal digits; C is probation or main
//	segments/N.C/EPOCH    the lowest epoch of its objects, in decimal; not there while it has none
//	segments/N.C/SEALED   present once the segment was closed cleanly and will not be written again
//
// The budget is split into 32 segments. New objects go to the open segment of their class. A
// segment that has its size is sealed: closed, and opened again read-only. Over budget, the store
// drops the oldest segment of a class whole. It first writes the objects that the policy in keep.go
// keeps to main, and then removes the folder. Nothing is ever deleted inside a segment, and no
// value log is garbage-collected: measured on Badger 4.9.6, value-log GC reclaimed nothing under
// churn, while dropped segments return their space at once.
//
// # Records of a segment
//
// Keys are binary, integers big-endian; id is the first 16 bytes of SHA-256 of the object's key:
//
//	'm' id              metadata of an object; its Badger version orders the metadata of one object over all segments
//	'c' id fill chunk   chunk number chunk (4 bytes) of the body written by fill (8 random bytes), 256 KiB each but the last
//
// Every value is length (4 bytes, of data), four CRC-32C (4 bytes each: of the record's key, the
// length, the number of a part of 64 KiB, and that part), data. The sums are checked as Bodies has
// it: Badger logs a failed read and returns an empty value without an error. The metadata is
// written last, so an object exists only when it is whole. Its data is, with varints as in
// encoding/binary and texts as a uvarint of their length and their bytes:
//
//	version (1 byte), fill (8 bytes), size (uvarint), stored (varint, ns since 1970),
//	epoch (uvarint), key (text), URL (text), number of tags (uvarint), each tag (text),
//	number of extents (uvarint), each: segment, first chunk (uvarints),
//	the caller's data (text)
//
// The version is 1, or 2 if the whole body follows (text), which is at most 2 KiB and then has no
// chunks. An earlier Kaiku takes version 2 for damage, so the object is a miss.
//
// An extent names the segment of the chunks from its first chunk up to the first chunk of the next
// extent, because a large object may span several segments. If one of these is gone, so is the
// object. A damaged value makes its object a miss and is never returned.
//
// The records in purges/ have a key of one letter (u, p, t, a) and a value (URL, prefix, tag,
// nothing), and are sealed in the same way around the sequences of the newest hard and the newest
// soft purge (8 bytes each). The record s holds the newest sequence, f the newest one of a record
// that was forgotten.
//
// # Bodies
//
// A Reader doesn't copy a chunk of at least 16 KiB. It finds the chunk in a value log of Badger
// (values.go), which it opens a second time. From there it sends the chunk with sendfile(2),
// returns it as mapped memory, or reads it. Badger never changes bytes that it has appended, so
// this works for the open segment too.
//
// If the page cache has a chunk, the store calls sendfile(2) without telling Go's scheduler. It
// asks the kernel at most once in two seconds for each chunk. Other chunks may have to come from
// the disk; meanwhile the scheduler gives the processor to other goroutines.
//
// A chunk is checked as a whole when it is first used after its segment was opened. One bit a chunk
// records that, and the chunk is not checked again. A chunk that was damaged before its first use
// is never sent. The scrubber checks such chunks again, 8 MiB a second, if the page cache has them.
// It clears the bit of the others, so they are checked when they next come from the disk. So a
// chunk that is damaged later, in memory or on the disk, may be sent until the scrubber reaches it.
// Metadata, chunks below 16 KiB, and objects that are copied to the RAM tier or written again are
// checked on each read.
//
// A Reader keeps the segments that it reads from. If such a segment is dropped, its folder is
// renamed, and removed when the last Reader is closed. At most two such segments are kept beyond
// the budget, and none below the free-space floor. Readers of further ones fail at their next
// chunk.
//
// # Writes
//
// Puts to a segment that come at the same time are one transaction of Badger (commit.go). They are
// not delayed for that.
//
// Badger writes a value log by a mapping of the file. There each page costs a page fault, which
// holds a processor of Go's scheduler, and another one after each sync. So on Linux the part of the
// mapping that is written next, at most 4 MiB, is anonymous memory. After each transaction the
// store writes the new bytes to the file with pwrite(2), and only then returns (window_linux.go). A
// kill before that leaves records whose values are missing, so the objects are misses.
//
// # Guarantees
//
// The allocated bytes of the folder never exceed the budget by more than three segments: one, and
// two that are still read. An object that was committed before a kill -9 survives it: written bytes
// are in the page cache at once, and reach the disk with the sync of each second. An acknowledged
// purge is on the disk. Below the free-space floor the store writes nothing, and drops a segment
// each second.
//
// A segment that can't be opened is deleted, and the store logs that. The store checks the tables
// of a segment first, because Badger ends the process on a damaged footer. If the process ends all
// the same, the file opening shows which segment was being opened. A segment that ended the process
// twice is deleted at the third start.
//
// # Purges
//
// A purge is one small record with a sequence number, not a scan. The epoch of an object is the
// sequence that was current when its fetch began. If a matching record has a higher sequence, the
// object is gone, or stale if the purge was soft.
//
// The store forgets a record when no segment, no writer and no fetch (see Hold) is older than it.
// It first stores the sequence of the record as the floor. Objects older than the floor count as
// gone: the response to a fetch without a Hold, or a segment that a power loss or an old copy of
// the disk brings back.
//
// The file segments/PURGES stays with the objects. It has the newest sequence that purges/ must
// have. If purges/ has only older records, is missing or can't be read, records are lost. The store
// then logs that, and marks all objects as suspect. New sequences are higher than all epochs. The
// position in the log that the store follows is a record too, so that lost purges which the log
// still has are applied again.
package storage
