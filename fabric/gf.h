/* Client side of a connection to one executor, for any language. A caller owns slots: it writes the request into the slot's
 * buffer, submits, and reads the result out of the slot's buffer once a completion names it; nothing is copied here.
 * At any time one thread at most harvests (gf_progress, gf_call) and one looks after the connection (gf_sleep, gf_control);
 * gf_submit may be called by many. */
#ifndef GLEANER_GF_H
#define GLEANER_GF_H

#include <stdint.h>

#include "layout.h"
#include "wire.h"

struct gf_conn;

/* address is "WAY|HOST" or "WAY|HOST|NUMBER". By WAY somebody carries the control connection to an executor on another node, under
 * TLS (package fabric/channel): "fd:N", an open socket, of which a copy is used, or "unix:PATH", a socket that is sent NUMBER (u64)
 * first. HOST is the address of this node that faces the executor. */
struct gf_dial_options {
	const char *address, *local, *symbol, *carrier, *provider, *host; /* none is NULL, "" stands for none */
	const uint8_t *token, *digest, *code;
	uint32_t token_bytes;
	uint64_t code_bytes;
	uint64_t buffer_bytes;
	uint32_t slots;
	int64_t spin_ns;    /* negative: always */
	int64_t timeout_ns; /* for gf_dial as a whole */
	int cancel_fd;      /* gf_dial ends when it becomes readable; -1 for none */
};

enum gf_dial_error { GF_DIAL_UNREACHABLE = 1, GF_DIAL_REFUSED = 2, GF_DIAL_FUNCTION = 3, GF_DIAL_TIMEOUT = 4, GF_DIAL_CANCELLED = 5 };

struct gf_error {
	int kind;      /* enum gf_dial_error */
	uint32_t code; /* refusal, or enum gf_status for GF_DIAL_FUNCTION */
	uint32_t signal;
	char text[GF_TEXT_BYTES];
};

struct gf_completion {
	uint64_t seq;
	uint32_t slot;
	uint32_t size;
	uint32_t status; /* enum gf_status */
	uint32_t signal;
};

enum { GF_WOKE_CARRIER = 1, GF_WOKE_CONTROL = 2, GF_WOKE_KICK = 4 };

/* gf_dial connects, authenticates, uploads the code where it is needed and attaches the carrier: 0, or -1 with e filled. */
int gf_dial(struct gf_conn **out, const struct gf_dial_options *options, struct gf_error *e);
/* gf_abort completes all that is in flight as gone; gf_close, with nobody left inside, frees. */
void gf_abort(struct gf_conn *c);
void gf_close(struct gf_conn *c);

int gf_carrier(const struct gf_conn *c);
/* gf_bells says whether doorbells are written, on ofi, instead of sent as messages; it follows the trial at connect. */
int gf_bells(struct gf_conn *c);
const struct gf_layout *gf_conn_layout(const struct gf_conn *c);
uint8_t *gf_request(struct gf_conn *c, uint32_t slot);
uint8_t *gf_result(struct gf_conn *c, uint32_t slot);

/* gf_submit sends what is in the slot's request buffer. The slot is the carrier's until its completion has been harvested.
 * After the executor is gone the completion says so. */
void gf_submit(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t cap, int64_t timeout_ns);
/* gf_progress harvests up to max completions, polling for at most spin_ns when there are none at first. */
int gf_progress(struct gf_conn *c, int64_t spin_ns, struct gf_completion *out, int max);
/* gf_call is gf_submit and gf_progress in one. */
int gf_call(struct gf_conn *c, uint32_t slot, uint32_t size, uint32_t cap, int64_t timeout_ns, int64_t spin_ns, struct gf_completion *out, int max);

/* gf_sleep waits for the control connection, a kick, and when armed the carrier; it returns what woke it, 0 after the timeout. */
int gf_sleep(struct gf_conn *c, int armed, int timeout_ms);
void gf_kick(struct gf_conn *c);
/* gf_control reads and follows the executor's notices; 1 once the executor is gone. */
int gf_control(struct gf_conn *c);
/* gf_reason copies why the executor is gone, gf_detail what is known about the failure of a slot's last request. */
void gf_reason(struct gf_conn *c, char *out, int n);
void gf_detail(struct gf_conn *c, uint32_t slot, char *out, int n);

#endif
