// Package storage is an object store for a cache on one disk, on top of Badger.
//
// # Layout
//
// The data folder holds
//
//	format          one line, "kaiku-store 1"
//	lock            flock'ed while a Store is open; holds the owner's process id
//	opening         names the segment that is being opened, and the try (see below)
//	purges/         a Badger of purge records, synced at each write
//	segments/N/     one Badger each; N counts up, zero-padded decimal
//	segments/N/SEALED   present once the segment was closed cleanly and will not be written again
//
// The budget is split into segments. New objects go to the one open segment, which is sealed when it has its size
// (closed, and opened again read-only). Over budget the oldest segment is dropped whole: its folder is removed. Nothing is ever
// deleted inside a segment and no value log is garbage-collected: measured on Badger 4.9.6, value-log GC reclaimed
// nothing under churn, while dropped segments return their space at once.
//
// # Records of a segment
//
// Keys are binary, integers big-endian; id is the first 16 bytes of SHA-256 of the object's key:
//
//	'm' id              metadata of an object; its Badger version orders the metadata of one object over all segments
//	'c' id fill chunk   chunk number chunk (4 bytes) of the body written by fill (8 random bytes)
//
// Every value is length (4 bytes, of data), CRC-32C (4 bytes, of the record's key and data), data. The sum is checked on each
// read: Badger logs a failed read and returns an empty value without an error. The metadata is written last, so an object exists
// only when it is whole. It names the segments that its chunks are in, as a large object may span several; where one of
// them is gone, so is the object. A damaged value makes its object a miss and is never returned.
//
// # Guarantees
//
// An object that was committed a second before a kill -9 is there after it: written bytes are in the page cache at
// once, and on the disk after the sync of each second. An acknowledged purge is on the disk. A segment that does not open is deleted, with one log line.
// The file opening is written before each open, so that a segment that ends the process twice while it
// is being opened is deleted at the third start.
//
// # Purges
//
// A purge is one small record with a sequence number, not a scan. Every object carries the sequence that was current when its
// fetch began; where a matching record has a higher one, the object is gone, or stale for a soft purge.
package storage
