/* The inside of libgleaner.
 *
 *	gleaner   a lease: members (executors that gleaner run has told of), calls, and the queue of those that wait for an executor
 *	member    an executor with a thread, its keeper, that dials it, follows it, and harvests when nobody else does
 *	line      a member's connection. A slot in use holds it open, so that its memory outlives the executor
 *
 * A call:
 *
 *	               pump            post               deliver
 *	IDLE ──▶ QUEUED ──▶ POSTING ──────▶ FLYING ──▶ DELIVERING ──▶ DONE ──▶ (gleaner_start: QUEUED or POSTING)
 *	           ▲                                       │  └─▶ HELD: killed once too often; an eviction may yet explain it
 *	           └───────────────────────────────────────┴───────┘
 *
 * mu guards everything but what is atomic or said to be somebody's own. On the way of a call nobody copies more than SMALL_COPY,
 * submits, polls or makes a system call with it held, but for waking a thread that sleeps. In POSTING and DELIVERING the call is
 * that thread's own. */
#ifndef GLEANER_INSIDE_H
#define GLEANER_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "../../fabric/gf.h"
#include "gleaner.h"
#include "shareframe.h"

enum {
	MAX_FAILURES = 20,  /* executors that a call may lose, not to evictions */
	MAX_KILLS = 3,      /* runs of a call that may be killed from outside */
	GRACE_MS = 300,     /* for gleaner run to say that it was an eviction */
	MAX_TROUBLE = 20,   /* executors in a row that cannot be used */
	PATIENCE = 5,       /* attempts to connect before an executor counts as useless */
	SLOTS = 16,         /* of a connection */
	SMALL_COPY = 4096,  /* results up to here are copied with mu held: cheaper than to take it twice */
	DIAL_TIMEOUT_MS = 30000
};

enum call_state { CALL_IDLE, CALL_QUEUED, CALL_POSTING, CALL_FLYING, CALL_DELIVERING, CALL_HELD, CALL_DONE };

struct line {
	struct gf_conn *c;
	gleaner *g;
	struct member *member; /* valid while the keeper holds its reference, and while requests fly */
	int refs;              /* its keeper, slots in use, threads that poll it */
	int up;                /* may be given calls */
	uint64_t free_slots;   /* bit per slot that nobody has */
	uint32_t small, large; /* slots of each kind */
	uint64_t small_bytes, large_bytes;
	uint32_t held[2]; /* slots that zero-copy calls keep, small and large */
	gleaner_call *calls[GF_MAX_TOTAL];
	struct line *next_dead;
	_Atomic int flying;      /* requests without a completion */
	_Atomic int pollers;     /* threads that poll for their own calls */
	_Atomic int armed;       /* the keeper sleeps until a reply comes, or is about to */
	atomic_flag harvesting;  /* held around gf_progress */
};

struct member {
	gleaner *g;
	struct member *next;
	uint64_t number;
	char id[SHARE_PATH], node[SHARE_PATH], address[SHARE_PATH], local[SHARE_PATH];
	uint8_t token[SHARE_TOKEN];
	uint32_t token_bytes;
	int gone;      /* as gleaner run says */
	int blame;     /* and it was the executor's own fault */
	int refresh;   /* its token is stale */
	int ended;     /* the keeper has returned */
	int wake;      /* eventfd: ends a dial or a pause */
	struct line *line; /* NULL unless connected */
	pthread_t keeper;
};

struct waiter {
	pthread_cond_t cond;
};

struct charge {
	uint64_t executor;
	int killed; /* else: lost */
};

struct gleaner_call {
	gleaner *g;
	gleaner_call *next, *previous; /* in g->calls */
	gleaner_call *behind;          /* in the queue, or among those to post */
	_Atomic int state;
	int owns; /* made by gleaner_alloc */
	const uint8_t *args;
	uint8_t *result;
	uint32_t size, room, args_room;
	uint8_t *heap;     /* of owns: the buffers, when no slot is */
	struct line *line; /* POSTING to DELIVERING, and as long as a zero-copy call keeps its slot */
	uint32_t slot;
	int status; /* DONE */
	uint32_t bytes, runs;
	uint32_t failures, kills, charged;
	struct charge charges[MAX_FAILURES + MAX_KILLS];
	int64_t held_until;
	struct waiter *waiter;
	char detail[192];
};

struct gleaner {
	pthread_mutex_t mu;
	struct member *members;
	gleaner_call *calls;
	gleaner_call *first, *last; /* the queue */
	gleaner_call *to_post;      /* assigned; gleaner_leave posts them */
	struct line *dead;          /* gleaner_leave closes them */
	int failure;                /* once set, nothing can run any more */
	char why[SHARE_TEXT];
	uint32_t trouble; /* executors that could not be used, in a row */
	uint32_t helds;   /* calls in HELD */
	uint64_t ok, failed, retried; /* not yet reported */
	int orphan;  /* gleaner run is gone */
	int stopping;
	int quiet; /* its threads have ended */
	gleaner *next_handle;
	int connected;
	pthread_cond_t joined; /* connected or failure changed */

	/* fixed once made */
	unsigned generation;
	int share, wake; /* socket (-1 once gleaner run is gone), eventfd of the lease's thread */
	pthread_t thread;
	uint32_t depth;
	int64_t spin_ns; /* 0: never, GLEANER_SPIN_ALWAYS */
	char carrier[16], provider[64];
	struct share_frame lease;
	const uint8_t *code; /* mapped */

	/* the lease's thread alone */
	uint8_t in[2 * (SHARE_HEAD + SHARE_MAX)];
	size_t in_bytes;
	int64_t reported; /* when counts were sent last */
};

/* pool.c; all but gleaner_enter, gleaner_leave and pool_harvest with mu held */
void gleaner_enter(gleaner *g);
void gleaner_leave(gleaner *g); /* gives mu back, then posts and closes what has gathered */
void pool_queue(gleaner *g, gleaner_call *call, int front);
void pool_unqueue(gleaner *g, gleaner_call *call);
void pool_pump(gleaner *g);
void pool_end(gleaner *g, gleaner_call *call, int status, uint32_t bytes, const char *detail);
void pool_fail(gleaner *g, int status, const char *why);
void pool_excuse(gleaner *g, uint64_t executor);
int64_t pool_judge_held(gleaner *g); /* returns when to ask again, 0 for never */
int pool_reserve(struct line *l, uint64_t bytes, uint32_t *slot);
void pool_release(struct line *l, uint32_t slot);
void pool_put(struct line *l);
int pool_harvest(struct line *l, int64_t spin_ns);
void pool_rearm(struct line *l);

/* call.c */
int call_to_heap(gleaner_call *call); /* without mu, by whom the call belongs to */

/* keep.c */
int keep_start(struct member *m);
void keep_wake(struct member *m);

/* lease.c */
void lease_wake(gleaner *g);
int lease_thread(pthread_t *t, void *(*run)(void *), void *arg); /* with all signals blocked */
unsigned lease_generation(void);
void lease_libfabric_is_loaded(void);
int lease_say(gleaner *g, const uint8_t *frame, size_t n);

/* join.c */
int lease_join(gleaner *g, const char *path);

/* spin.c */
int spin_budget(int64_t asked, int64_t *budget); /* GLEANER_INVALID when $GLEANER_SPIN makes no sense */
int64_t spin_on_the_wire(int64_t budget);

/* text.c */
int text_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

int64_t gleaner_now(void);

#endif
