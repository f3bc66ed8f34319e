/* The data path's formats: limits, statuses, slots, the ring's shared memory and the messages of the ofi carrier.
 * Both sides are on little-endian machines with 64-bit atomics; everything received is checked before it is used. */
#ifndef GLEANER_WIRE_H
#define GLEANER_WIRE_H

#include <stdatomic.h>
#include <stdint.h>

enum {
	GF_PAGE = 4096,
	GF_GAP_BYTES = 2 * GF_PAGE, /* before each buffer: a guard page, and one that ends in the message about the buffer */
	GF_SMALL_BYTES = 64 * 1024, /* buffers of ordinary slots */
	/* Slots with buffers of the connection's full size: as many as GF_LARGE_BYTES hold in each direction, within these bounds. Two
	 * keep a carrier busy with payloads of megabytes; smaller ones are over before the next has come. */
	GF_LEAST_LARGE = 2,
	GF_MOST_LARGE = 4,
	GF_LARGE_BYTES = 4 << 20,
	GF_MAX_SLOTS = 64,
	GF_MAX_TOTAL = GF_MAX_SLOTS + GF_MOST_LARGE,
	GF_RING_ENTRIES = 128, /* a power of two above GF_MAX_TOTAL, so that a producer never has to wait */
	GF_INLINE_BYTES = 4096, /* payloads up to here travel inside the ofi message */
	GF_BELL_BYTES = GF_SMALL_BYTES
};

enum gf_status {
	GF_OK = 0,
	GF_CRASHED = 1,
	GF_DEADLINE = 2,
	GF_TOO_LARGE = 3,
	GF_UNKNOWN_SYMBOL = 4,
	GF_LOAD_FAILED = 5,
	GF_EXITED = 6,
	GF_BAD_REQUEST = 7,
	GF_GONE = 100,      /* the executor is gone and the request had not begun */
	GF_GONE_BEGAN = 101 /* the executor is gone and the request may have begun */
};

enum gf_carrier { GF_RING = 1, GF_OFI = 2 };

/* One request or reply of the ring. stamp is its position in the ring plus one, stored last. */
struct gf_desc {
	_Alignas(64) _Atomic uint64_t stamp;
	uint64_t seq;
	uint32_t slot;
	uint32_t size;
	uint32_t cap;    /* request: room for the result */
	uint32_t status; /* reply: enum gf_status */
	int64_t timeout; /* request: nanoseconds, 0 for none */
};

/* The first pages of an arena. The client clears them before it attaches. */
struct gf_shared {
	_Alignas(64) _Atomic uint32_t worker_sleeps;
	_Alignas(64) _Atomic uint32_t client_sleeps;
	_Alignas(64) _Atomic uint64_t begun; /* sequence of the newest request that the worker has begun */
	struct gf_desc request[GF_RING_ENTRIES];
	struct gf_desc reply[GF_RING_ENTRIES];
};

enum { GF_SHARED_BYTES = (sizeof(struct gf_shared) + GF_PAGE - 1) / GF_PAGE * GF_PAGE };

/* INLINE: the payload follows in the message. BELL: a request that may be answered by a write with a doorbell. */
enum { GF_MESSAGE_INLINE = 1, GF_MESSAGE_BELL = 2 };

/* Message of the ofi carrier: request to the worker, reply to the client. It lies right before the slot's buffer and goes as a
 * message, with payloads up to GF_INLINE_BYTES behind it and larger ones written into the peer's buffer before, or, with payloads
 * up to GF_BELL_BYTES, as one RMA write to the same place at the peer, whose remote data is the doorbell (gf_bell): above that it
 * costs more to move payloads that do not begin with a page than to send a message. cookie is the
 * connection's secret: messages without it are dropped. */
struct gf_message {
	_Alignas(64) uint64_t cookie;
	uint64_t seq;
	uint32_t connection;
	uint32_t slot;
	uint32_t size;
	uint32_t cap;
	uint32_t status;
	uint32_t flags;
	int64_t timeout;
};

_Static_assert(sizeof(struct gf_desc) == 64, "a descriptor fills a cache line");
_Static_assert(sizeof(struct gf_message) == 64, "message layout; payloads behind it stay aligned");
_Static_assert(GF_RING_ENTRIES > GF_MAX_TOTAL, "ring holds all requests in flight");

/* A doorbell: the 32 bits that a write may carry everywhere. The tag, of the cookie's last bits, is a first sieve; what counts is
 * the message that has been written. Slot GF_BELL_TRIAL stands for the trial at connect, whose messages lie at the arena's
 * beginning: the request first, the answer behind it. */
enum { GF_BELL_CONNECTION_BITS = 6, GF_BELL_SLOT_BITS = 7, GF_BELL_TAG_BITS = 19, GF_BELL_TRIAL = (1 << GF_BELL_SLOT_BITS) - 1 };

struct gf_bell {
	uint32_t connection, slot, tag;
};

static inline uint32_t gf_bell_tag(uint64_t cookie) { return (uint32_t)cookie & ((1u << GF_BELL_TAG_BITS) - 1); }

static inline uint32_t gf_bell_pack(uint32_t connection, uint32_t slot, uint64_t cookie) {
	return connection | slot << GF_BELL_CONNECTION_BITS | gf_bell_tag(cookie) << (GF_BELL_CONNECTION_BITS + GF_BELL_SLOT_BITS);
}

static inline struct gf_bell gf_bell_unpack(uint32_t data) {
	return (struct gf_bell){.connection = data & ((1u << GF_BELL_CONNECTION_BITS) - 1),
		.slot = data >> GF_BELL_CONNECTION_BITS & ((1u << GF_BELL_SLOT_BITS) - 1),
		.tag = data >> (GF_BELL_CONNECTION_BITS + GF_BELL_SLOT_BITS)};
}

_Static_assert(GF_MAX_SLOTS <= 1 << GF_BELL_CONNECTION_BITS && (int)GF_MAX_TOTAL < (int)GF_BELL_TRIAL, "a doorbell names every slot of every connection");

/* Page shared between the executor's supervisor and its worker. The worker writes everything but wake_asleep and commands.
 * run is a generation with two flags: the worker sets GF_RUNNING when it calls the function and takes it back by
 * compare-and-swap; the supervisor condemns a request that is over its deadline by the same means, so that exactly one of
 * them decides how it ended. */
enum { GF_RUNNING = 1, GF_CONDEMNED = 2, GF_GENERATION = 4 };
enum { GF_FAULT_RESULT = 1, GF_FAULT_STATE = 2 }; /* what the function wrote to and may not: behind a result buffer, this page */

struct gf_state {
	_Atomic uint64_t run;
	_Atomic uint64_t connection;
	_Atomic uint64_t seq;
	_Atomic int64_t deadline; /* CLOCK_MONOTONIC, nanoseconds, 0 for none */
	_Atomic uint32_t loaded;  /* the function's symbol is resolved */
	_Atomic uint32_t fault_signal;
	_Atomic uint32_t fault_guard; /* GF_FAULT_..., 0 for neither */
	_Atomic uint32_t wake_asleep; /* supervisor sleeps: tell it when a request with a deadline begins */
	_Atomic uint32_t commands;    /* grows with each command on the socket */
	uint32_t reserved;
	_Atomic uint64_t invocations;
	_Atomic uint64_t busy_ns;
	_Atomic uint64_t spin_ns;
	_Atomic uint64_t begun[GF_MAX_SLOTS]; /* by connection: newest sequence begun */
};

enum { GF_MAX_CONNECTIONS = GF_MAX_SLOTS };

/* Commands between supervisor and worker: one SOCK_SEQPACKET packet each, of this fixed size. */
enum gf_op {
	GF_OP_ATTACH = 1,
	GF_OP_DETACH = 2,
	GF_OP_LOADED = 3,
	GF_OP_FAILED = 4,
	GF_OP_ATTACHED = 5,
	GF_OP_WAKE = 6,
	GF_OP_LOAD = 7,  /* the library's descriptor; text: symbol, cookie: lease, connection: job, slots: cores, address: executor */
	GF_OP_FABRIC = 8 /* open the endpoint: a connection over it is to come; answered in kind, whether or not it could be opened */
};

enum {
	GF_LOAD_NETWORK = 1, /* in key of GF_OP_LOAD: the function may open sockets */
	GF_EXIT_AGAIN = 77,  /* exit status of a sealed worker that is to open its endpoint: start another */
};

enum { GF_ADDRESS_BYTES = 256, GF_TEXT_BYTES = 512 };

struct gf_command {
	uint32_t op;
	uint32_t connection;
	uint32_t carrier;
	uint32_t slots;
	uint64_t buffer_bytes;
	uint64_t cookie;
	int64_t spin_ns;
	uint64_t key;
	uint64_t base;
	uint32_t status; /* GF_OP_FAILED and GF_OP_ATTACHED: 0 when all is well */
	uint32_t address_bytes;
	uint8_t address[GF_ADDRESS_BYTES];
	char text[GF_TEXT_BYTES];
};

_Static_assert(sizeof(struct gf_command) == 64 + GF_ADDRESS_BYTES + GF_TEXT_BYTES, "command layout");

#endif
