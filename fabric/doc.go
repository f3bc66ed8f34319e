// Package fabric connects a client to an executor and moves invocations between them: memory to memory, with C on the hot
// path. It owns the carriers, the control protocol's client side and the request slots; it knows nothing of leases and never
// retries elsewhere. Package client calls it; the executor's worker is built from the same C files (wire.h, layout, ring, ofi).
//
// # Carriers
//
// ring serves clients on the executor's node. The client makes a sealed memfd (the arena) and passes it with two eventfds over
// the executor's Unix socket; the function works in place. All shared memory is the client's: when the executor is killed
// nothing of it remains reachable, and nothing is charged to it, because the client writes each page first.
// ofi serves everybody else: libfabric RDM endpoints, by default tcp;ofi_rxm. libfabric is loaded at run time. Each connection has
// a secret cookie, given only over the authenticated control connection; what comes without it is dropped. Memory keys are random
// where the provider lets us choose them.
//
// There are two doorbells on ofi. A write puts message and payload, up to 64 KiB, into the peer's slot, and its remote data (32
// bits) says where; nothing is copied. Otherwise a message carries payloads up to 4 KiB, and larger ones are written into the slot
// before it. When an executor is attached a write is tried; messages serve until the executor has answered it by another, and
// for ever where it does not (or where that is known beforehand: gf_ofi_rings in ofi.c). Requests say whether they may be answered by a write.
// GLEANER_DOORBELL=message or write forces one, for tests and measurements.
//
// A request occupies a slot until its reply: Options.Slots small ones of at most 64 KiB each way, and two more with buffers of
// the connection's full size. Replies come in the order of execution. An executor runs the requests of all its connections one
// after the other; while a function runs no other connection can be attached.
//
// # Failure
//
// What ends a function (crash, deadline, exit, oversized result) ends that request alone, with a FunctionError. The executor
// starts its worker again; requests that were sent and not answered are sent again without the caller's notice, so that one
// that had ended just before a crash may run twice. A lost control connection means that the executor is gone: everything in
// flight ends with a GoneError at once.
//
// # Control protocol
//
// Over TLS (package fabric/channel) or the Unix socket, little-endian. A frame is
//
//	u32 size of body | u16 type | u16 zero | body
//
// with bodies of at most 4096 bytes, but for CODE, whose size the lease bounds. str is u16 length and so many bytes.
//
//	type         from      body
//	 1 HELLO     client    u32 "GLNR" | u16 version 2 | u16 carriers (bit 1 ring, bit 2 ofi) | u64 buffer | u32 slots | i64 spin ns
//	                       | 32 bytes digest | str token | str symbol | str provider
//	 2 ACCEPT    executor  u16 carrier (1 ring, 2 ofi) | u16 need code | u32 slots | u32 connection | u64 buffer | u64 cookie | str provider
//	 3 REFUSED   executor  u32 RefusalCode | u32 zero | str text; the executor closes
//	 4 CODE      client    the library
//	 5 ATTACH    client    u64 key | u64 base | str endpoint address; on the ring with SCM_RIGHTS: memfd, worker's and client's eventfd
//	 6 ATTACHED  executor  u64 key | u64 base | str endpoint address
//	 7 CRASHED   executor  u64 sequence, 0 for none of this connection | u64 newest begun | u32 Kind | u32 signal | str text
//	 8 RESTARTED executor  nothing: attach again
//	 9 REVOKED   executor  u64 newest sequence begun | str reason; the executor is killed right after
//	10 GOODBYE   executor  str reason
//	11 FAILED    executor  u32 Kind | u32 signal | str text: the library cannot be used; the executor closes
//
// The story of a connection: HELLO, ACCEPT, (CODE), ATTACH, ATTACHED, invocations by the carrier; after a crash CRASHED,
// RESTARTED, ATTACH, ATTACHED and so on. Package fabric/control is the codec in Go, frame.c the one in C.
package fabric
