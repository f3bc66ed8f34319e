/* libgleaner: run functions on what Slurm leaves over, from C, C++ and Fortran (module gleaner).
 *
 *	gleaner run --function mine.so:f --executors 8 -- ./program
 *
 * takes a lease and keeps it for the program and its children; gleaner_init finds it through $GLEANER_LEASE. Evicted is not
 * failed: an invocation that loses its executor to a Slurm job runs again on another, as often as it takes, and ends with exactly
 * one result or one final error. A function may therefore run more than once on the same arguments, and must not mind.
 *
 * Threads: every function may be called by any number of threads at once, but a gleaner_call belongs to one thread at a time, as an
 * MPI_Request does, and nobody may be inside another function of a handle during its gleaner_finish. The library's own threads
 * (one for the lease, one for each executor) sleep unless something happens, and block all signals.
 * Fork: a child finds its parent's handles refused with GLEANER_FORKED; it may gleaner_init for itself.
 * MPI: call MPI_Init before gleaner_init, which sets environment variables of libfabric when the first remote executor comes. */
#ifndef GLEANER_H
#define GLEANER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GLEANER_API __attribute__((visibility("default")))

/* What functions return: GLEANER_OK, GLEANER_PENDING, or one of the errors, which are negative and keep their numbers. */
enum gleaner_status {
	GLEANER_OK = 0,
	GLEANER_PENDING = 1, /* not yet */

	/* the function's own failures; running it again elsewhere would not help */
	GLEANER_CRASHED = -1,        /* ended by a signal of its own making, or killed three times over for its memory */
	GLEANER_DEADLINE = -2,       /* ran longer than gleaner run's --timeout */
	GLEANER_TOO_LARGE = -3,      /* returned more than there was room for */
	GLEANER_UNKNOWN_SYMBOL = -4, /* the library has no such function */
	GLEANER_LOAD_FAILED = -5,    /* the library does not load on the node */
	GLEANER_EXITED = -6,         /* called exit */
	GLEANER_BAD_REQUEST = -7,

	GLEANER_LOST = -20,  /* executors were lost too often, and not to evictions */
	GLEANER_ENDED = -21, /* the lease has ended */

	GLEANER_NO_LEASE = -30,    /* $GLEANER_LEASE is not set: start the program with gleaner run --function */
	GLEANER_UNREACHABLE = -31, /* gleaner run does not answer */
	GLEANER_PROTOCOL = -32,    /* gleaner run speaks another protocol: of another version? */

	GLEANER_INVALID = -40, /* an argument makes no sense */
	GLEANER_TOO_BIG = -41, /* more than gleaner_buffer_bytes */
	GLEANER_NO_MEMORY = -42,
	GLEANER_FORKED = -43 /* the handle belongs to the parent process */
};

typedef struct gleaner gleaner;           /* a lease */
typedef struct gleaner_call gleaner_call; /* an invocation */

/* Zeroed, all choices are good ones; bytes is sizeof(struct gleaner_options). */
struct gleaner_options {
	uint32_t bytes;
	uint32_t depth;       /* invocations at an executor at a time, one running and the rest ready behind it; 0: 2, at most 16 */
	int64_t spin_ns;      /* both sides poll for so long before they sleep; 0: $GLEANER_SPIN, else 50 us; or one of the two below */
	const char *lease;    /* socket of gleaner run; NULL: $GLEANER_LEASE */
	const char *carrier;  /* "ring", "ofi"; NULL: the ring on the same node and ofi otherwise */
	const char *provider; /* of libfabric; NULL: the executor's choice */
};

#define GLEANER_SPIN_NEVER ((int64_t)-1)
#define GLEANER_SPIN_ALWAYS INT64_MAX

/* gleaner_init joins the lease. It does not wait for executors: invocations wait for them. options may be NULL. */
GLEANER_API int gleaner_init(gleaner **out, const struct gleaner_options *options);
/* gleaner_finish leaves the lease and frees all calls of the handle; what is in flight is given up. The lease itself ends with gleaner run. */
GLEANER_API void gleaner_finish(gleaner *g);

GLEANER_API uint64_t gleaner_lease(const gleaner *g);        /* its number, for gleaner explain */
GLEANER_API uint64_t gleaner_buffer_bytes(const gleaner *g); /* largest arguments or result */
GLEANER_API int gleaner_wanted(const gleaner *g);            /* executors that the lease asked for */
GLEANER_API int gleaner_executors(gleaner *g);               /* connected now, or an error */
/* gleaner_await waits until so many executors are connected: GLEANER_OK, GLEANER_PENDING after the time, or why there will be none. */
GLEANER_API int gleaner_await(gleaner *g, int executors, int64_t timeout_ms);

/* gleaner_run calls the function and waits for its result, which is copied to result; *bytes is its length. bytes may be NULL. */
GLEANER_API int gleaner_run(gleaner *g, const void *args, uint32_t size, void *result, uint32_t room, uint32_t *bytes);

/* gleaner_invoke begins a call and returns at once. args and result are the caller's and must stay as they are until the call has
 * ended; an interrupted call reads args again. Each call is to be freed. */
GLEANER_API int gleaner_invoke(gleaner *g, const void *args, uint32_t size, void *result, uint32_t room, gleaner_call **out);

/* Zero copy: gleaner_alloc makes a call with buffers in memory that an executor can reach, when one has room, and in ordinary memory
 * otherwise. Write up to args_bytes to gleaner_args, gleaner_start, wait, read gleaner_result. A call that has ended may be started
 * again with other arguments; ask for both addresses anew then. The function must leave its arguments as they are. */
GLEANER_API int gleaner_alloc(gleaner *g, uint32_t args_bytes, uint32_t room, gleaner_call **out);
GLEANER_API void *gleaner_args(gleaner_call *call);
GLEANER_API int gleaner_start(gleaner_call *call, uint32_t size);
GLEANER_API const void *gleaner_result(gleaner_call *call); /* NULL unless it has ended with GLEANER_OK */

/* gleaner_wait waits for the end of a call: its outcome, or GLEANER_PENDING after timeout_ms (negative: none). bytes may be NULL. */
GLEANER_API int gleaner_wait(gleaner_call *call, int64_t timeout_ms, uint32_t *bytes);
/* gleaner_test is gleaner_wait without waiting. */
GLEANER_API int gleaner_test(gleaner_call *call, uint32_t *bytes);
/* gleaner_wait_any waits until one of n calls of the same handle has ended: GLEANER_OK with its place in *which (then gleaner_test
 * tells its outcome), or GLEANER_PENDING. NULL entries are passed over. GLEANER_INVALID when all are. */
GLEANER_API int gleaner_wait_any(gleaner_call *const *calls, uint32_t n, int64_t timeout_ms, uint32_t *which);
/* gleaner_free frees a call. One in flight is given up: nothing is written to its result any more. */
GLEANER_API void gleaner_free(gleaner_call *call);
/* gleaner_runs is how often the call has been sent to an executor: 1 unless it was interrupted. */
GLEANER_API uint32_t gleaner_runs(const gleaner_call *call);

/* gleaner_text is a status in words. */
GLEANER_API const char *gleaner_text(int status);
/* gleaner_detail is what else is known about the error that a function of this library last returned to this thread. */
GLEANER_API const char *gleaner_detail(void);

#ifdef __cplusplus
}
#endif

#endif
