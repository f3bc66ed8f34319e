/* The inside of struct gf_conn, shared by dial.c, conn.c and carrier.c only. */
#ifndef GLEANER_CONN_H
#define GLEANER_CONN_H

#include <stdatomic.h>

#include "frame.h"
#include "gf.h"
#include "ofi.h"
#include "ring.h"

enum stage { STAGE_FREE = 0, STAGE_PENDING = 1, STAGE_WRITTEN = 2, STAGE_SENT = 3 };

struct slot {
	uint64_t seq;
	uint32_t size, cap;
	int64_t timeout;
	enum stage stage;
	uint32_t touched; /* so many bytes of the result buffer have been written by this process */
	char detail[128];
};

struct gf_conn {
	atomic_flag lock; /* guards everything below up to the control connection's part, but awaited */
	_Atomic uint64_t awaited; /* stamp of the ring's next reply, while nothing else can end a request; 0: harvest has to look */
	struct slot slots[GF_MAX_TOTAL];
	uint64_t next_seq;
	struct gf_completion done[GF_MAX_TOTAL];
	uint32_t done_count;
	uint32_t unsent; /* slots that the carrier could not take yet */
	int up;          /* the carrier is attached */
	int gone;
	char reason[GF_TEXT_BYTES];
	struct gf_ring requests, replies;
	struct gf_ofi *ofi;
	struct gf_ofi_memory memory;
	uint64_t peer, peer_base, peer_key;
	int bells; /* the executor has answered a doorbell: the rest go so, not as messages */
	int untried; /* the carrier has not yet taken the trial's doorbell */
	int64_t failed_at; /* when the carrier reported its first error since it is up, 0 for none */

	/* fixed once dialled */
	int carrier;
	struct gf_layout layout;
	uint8_t *arena;
	struct gf_shared *shared;
	int arena_fd, worker_wake, client_wake, kick;
	uint32_t connection;
	uint64_t cookie;
	char host[128], provider[64];

	/* the control connection: used by one thread */
	int control, cancel, local;
	int accepted;
	uint8_t in[2 * GF_FRAME_MAX];
	size_t in_bytes;
	const struct gf_dial_options *options; /* while dialling */
	struct gf_error failure;               /* of the dial */
	int failed;
	int64_t give_up; /* of the dial, CLOCK_MONOTONIC */
};

int64_t gf_now(void);
void gf_lock(struct gf_conn *c);
void gf_unlock(struct gf_conn *c);

/* carrier.c; called with the lock held unless said otherwise */
void gf_carrier_post(struct gf_conn *c, uint32_t slot);
void gf_carrier_poll(struct gf_conn *c);
void gf_carrier_resend(struct gf_conn *c);
void gf_complete(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t status, uint32_t signal);
/* gf_carrier_try tries a doorbell on an executor that has just been attached. */
void gf_carrier_try(struct gf_conn *c);
/* gf_carrier_open makes what the executor must know for attaching, without the lock and while the carrier is down. */
int gf_carrier_open(struct gf_conn *c, uint8_t *address, uint32_t *address_bytes, char *why, size_t why_bytes);
void gf_carrier_close(struct gf_conn *c);

/* conn.c */
void gf_lost(struct gf_conn *c, const char *reason, uint64_t begun, int exact);

#endif
