// Package storage is an object store for a cache on one disk, on top of Badger.
//
// # Layout
//
// The data folder holds
//
//	format          one line, "kaiku-store 3"; a folder with another one is refused
//	lock            flock'ed while a Store is open; holds the owner's process id
//	opening         names the segment that is being opened, and the try (see below)
//	purges/         a Badger of purge records
//	segments/PURGES up to which sequence these are on the disk (see Purges)
//	segments/N.C/   one Badger each; N counts up, eight decimal digits; C is probation or main
//	segments/N.C/EPOCH    the lowest epoch of its objects, in decimal; not there while it has none
//	segments/N.C/SEALED   present once the segment was closed cleanly and will not be written again
//
// The budget is split into 32 segments. New objects go to the open segment of their class, which is
// sealed at its size (closed, and opened again read-only). Over budget the oldest segment of a
// class is dropped whole: its folder is removed, after what the policy of keep.go keeps was written
// again to main. Nothing is ever deleted inside a segment and no value log is garbage-collected:
// measured on Badger 4.9.6, value-log GC reclaimed nothing under churn, while dropped segments
// return their space at once.
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
//	version (1 byte, 1), fill (8 bytes), size (uvarint), stored (varint, ns since 1970), epoch (uvarint), key (text), URL (text),
//	number of tags (uvarint), each tag (text), number of extents (uvarint), each: segment, first chunk (uvarints), the caller's data (text)
//
// An extent says that the chunks from its first on, up to the next extent's first, are in a
// segment, as a large object may span several; where one of them is gone, so is the object. A
// damaged value makes its object a miss and is never returned.
//
// The records in purges/ have a key of one letter (u, p, t, a) and a value (URL, prefix, tag,
// nothing), and are sealed in the same way around the sequences of the newest hard and the newest
// soft purge (8 bytes each). The record s holds the newest sequence, f the newest one of a record
// that was forgotten.
//
// # Bodies
//
// A Reader doesn't copy a chunk of at least 16 KiB: it finds where the chunk lies in a value log of
// Badger's (values.go), which is opened a second time, and sends it from there by sendfile(2),
// shows it as it is mapped, or reads it from there. Badger never changes what it has appended, so
// that this holds for the open segment too.
//
// Go's scheduler isn't told of a sendfile(2) of a chunk that the page cache has. The kernel is
// asked for that once in two seconds for a chunk. Other chunks may have to come from the disk, and
// the scheduler gives the processor to other goroutines meanwhile.
//
// A chunk is checked as a whole when it is first used after its segment was opened, and not again
// while it is known to be right: one bit a chunk. What was damaged before the first use is never
// sent. The scrubber checks those chunks again, 8 MiB a second, as far as the page cache has them;
// of the others it forgets that they were checked, so that they are when they next come from the
// disk. So what is damaged later, in memory or on the disk, may be sent until the scrubber has come
// round. Metadata, chunks below 16 KiB, and what is copied to the RAM tier or written again are
// checked on each read.
//
// A Reader keeps the segments that it reads of: one that is dropped meanwhile is renamed, and
// removed when its last Reader is closed. Two such segments are kept at most, beyond the budget,
// and none below the free-space floor: Readers of others end with an error at their next chunk.
//
// # Guarantees
//
// The allocated bytes of the folder never exceed the budget by more than a segment, and two that
// are still read. An object that was committed before a kill -9 is there after it: written bytes
// are in the page cache at once, and on the disk after the sync of each second. An acknowledged
// purge is on the disk. Below the free-space floor nothing is written, and a segment is given back
// each second.
//
// A segment that does not open is deleted, with one log line. Its tables are checked first, because
// Badger ends the process on a damaged footer; should it end all the same, the file opening, which
// is written before each open, tells: a segment that ended the process twice is deleted at the
// third start.
//
// # Purges
//
// A purge is one small record with a sequence number, not a scan. Every object carries the sequence
// that was current when its fetch began, its epoch; where a matching record has a higher one, the
// object is gone, or stale for a soft purge.
//
// A record is forgotten when no segment, no writer and no fetch (see Hold) is older than it. Its
// sequence is noted before it goes, and what is older than that counts as gone: the answer to a
// fetch that nobody held, a segment that a power loss or an old copy of the disk brings back.
//
// The file segments/PURGES goes and comes with the objects. If it tells of newer records than
// purges/ has, or if purges/ is missing or can't be read, records are lost. The store logs that and
// marks all objects as suspect; sequences go on above those that objects have. The position of
// the log that the store follows is a record too, so that purges that only the log still has are
// applied again.
package storage
