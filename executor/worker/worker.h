/* The worker: one process that holds a user's shared library and serves its function to all connections of a lease, one request
 * after the other on one thread. It trusts its supervisor alone, which it may not outlive; everything it maps can be scribbled
 * on by the function, which harms nobody but the function's owner. */
#ifndef GLEANER_WORKER_H
#define GLEANER_WORKER_H

#include "layout.h"
#include "ofi.h"
#include "ring.h"

typedef uint32_t function(void *args, uint32_t size, void *result);

struct connection {
	int used;
	int dead; /* its client cannot be written to */
	uint32_t id;
	uint32_t carrier;
	struct gf_view view;
	struct gf_ring requests, replies; /* ring */
	int worker_wake, client_wake;
	uint64_t cookie, peer, peer_key, peer_base; /* ofi */
	struct gf_ofi_memory memory;
	uint64_t heard[GF_MAX_TOTAL]; /* by slot: newest request, so that no doorbell rings twice */
	int64_t spin_ns;
};

struct worker {
	int command; /* socket to the supervisor */
	struct gf_state *state;
	function *run;
	const char *host, *provider;
	struct gf_ofi *ofi; /* opened by GF_OP_FABRIC, or with the first connection that needs it */
	struct connection connections[GF_MAX_CONNECTIONS];
	struct connection *rings[GF_MAX_CONNECTIONS]; /* those on the ring, close together because they are polled */
	uint32_t ring_count;
	uint32_t seen_commands;
	int64_t spin_ns; /* the longest of all connections, INT64_MAX for always */
	int64_t bulk_ns; /* added to it after a large payload, for so long as another takes to arrive */
	uint64_t began;  /* ticks when the request that is being served began, 0 for one that is refused */
	int64_t mark;    /* end of the last request or of the last sleep */
	int64_t counted; /* until when polling is in the state page */
	int64_t origin_ns; /* one moment on the clock and in ticks */
	uint64_t origin_ticks;
	uint64_t generation;
	int sealed; /* no socket can be opened any more */
};

struct request {
	uint64_t seq;
	uint32_t slot, size, cap;
	int64_t timeout;
	void *args;
};

int64_t worker_now(void); /* CLOCK_MONOTONIC, nanoseconds */
void worker_start_clock(struct worker *w);
/* worker_spun adds the time since counted to what has been polled without serving. */
void worker_spun(struct worker *w, int64_t now);

/* load.c: loads the library as GF_OP_LOAD says, and tells the supervisor how that went. */
void worker_load(struct worker *w, const struct gf_command *in, int code);
void worker_catch_faults(struct worker *w);

/* seal.c: the last thing before the library's own code runs; -1 with errno. */
int worker_seal(struct worker *w, int keep_network);

/* serve.c: each returns how many requests it has served. */
int serve_ring(struct worker *w, struct connection *c);
int serve_ofi(struct worker *w);

/* attach.c: reads the supervisor's commands; exits when the supervisor is gone. */
/* worker_open_fabric opens the endpoint unless it is open; -1 with a text in why. */
int worker_open_fabric(struct worker *w, char *why, size_t why_bytes);
void worker_commands(struct worker *w);
void worker_tell(struct worker *w, const struct gf_command *command);

#endif
