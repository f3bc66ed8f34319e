// Package share lends a lease to other processes of the same user on this node: `gleaner run` holds the lease and serves it through
// a Unix socket, whose path is in $GLEANER_LEASE; libgleaner connects, learns of executors as they come and go, and invokes them
// itself. Invocations never pass through here. It decides nothing about tasks; client/c has its peer.
//
// # Frames
//
// Little-endian. A frame is
//
//	u32 size of body | u16 type | u16 zero | body
//
// with bodies of at most 4096 bytes. str is u16 length and so many bytes, none of them zero but in the token.
//
//	type         from     body
//	 1 LEASE     server   u32 "GLSH" | u16 version 1 | u16 zero | u64 lease | u64 buffer | i64 timeout ns, 0 for none | u32 executors
//	                      wanted | u64 size of library | 32 bytes digest | str symbol; with SCM_RIGHTS: the library as a sealed memfd
//	 2 READY     server   u64 executor | str id | str node | str way | str local | str token; again when the token is fresh
//	 3 GONE      server   u64 executor | u32 1 when the executor itself failed | str text
//	 4 ENDED     server   u32 api.EndReason | str text: the lease is over
//	16 HELLO     client   u32 "GLSH" | u16 version 1 | u16 zero
//	17 REFRESH   client   u64 executor: its token is refused as stale
//	18 COUNTS    client   u64 ok | u64 failed | u64 retried: tasks since the last COUNTS
//
// The way is the address that gf.h explains: a second socket beside the first carries connections to executors of other nodes. Who
// connects to it says the executor's number (u64), and what follows goes through a connection that only that executor can read
// (package fabric/channel): C programs need no TLS.
//
// The story of a connection: HELLO; LEASE, READY for each executor that lives, then each change as it happens. Whoever breaks the
// protocol, does not say HELLO within 10 s, or does not read, is hung up on.
package share
