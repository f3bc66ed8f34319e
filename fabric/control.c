/* The control connection: sending frames, and following what the executor says. */
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { SEND_TIMEOUT_MS = 5000 };

void gf_dial_failed(struct gf_conn *c, int kind, uint32_t code, uint32_t signal, const char *text) {
	if (c->failed) return;
	c->failed = 1;
	c->failure = (struct gf_error){.kind = kind, .code = code, .signal = signal};
	snprintf(c->failure.text, sizeof c->failure.text, "%s", text);
}

/* wait_writable keeps to the dial's deadline, or to a fixed one afterwards. */
static int wait_writable(struct gf_conn *c) {
	int64_t left = c->options != NULL ? (c->give_up - gf_now()) / 1000000 : SEND_TIMEOUT_MS;
	struct pollfd p[2] = {{.fd = c->control, .events = POLLOUT}, {.fd = c->options != NULL ? c->cancel : -1, .events = POLLIN}};

	if (left <= 0 || poll(p, 2, (int)left) <= 0 || p[1].revents != 0) return -1;
	return 0;
}

int gf_control_send(struct gf_conn *c, const uint8_t *b, size_t n) {
	while (n > 0) {
		ssize_t sent = send(c->control, b, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR) continue;
		if (sent < 0 && errno != EAGAIN) return -1;
		if (sent < 0 && wait_writable(c) != 0) return -1;
		if (sent > 0) {
			b += sent;
			n -= (size_t)sent;
		}
	}
	return 0;
}

/* send_with_arena sends a frame with the arena and both wake-up descriptors. */
static int send_with_arena(struct gf_conn *c, const uint8_t *b, size_t n) {
	int fds[3] = {c->arena_fd, c->worker_wake, c->client_wake};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof fds)];
	} u;
	struct iovec v = {.iov_base = (void *)(uintptr_t)b, .iov_len = n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
	struct cmsghdr *h;

	memset(&u, 0, sizeof u);
	h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(h), fds, sizeof fds);
	for (;;) {
		ssize_t sent = sendmsg(c->control, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) return gf_control_send(c, b + sent, n - (size_t)sent); /* the descriptors travel with the first byte */
		if (errno == EINTR) continue;
		if (errno != EAGAIN || wait_writable(c) != 0) return -1; /* EAGAIN: the executor still reads the code */
	}
}

void gf_attach(struct gf_conn *c) {
	uint8_t address[GF_ADDRESS_BYTES], frame[GF_FRAME_HEAD + 512];
	uint32_t address_bytes = 0;
	char why[GF_TEXT_BYTES] = "";
	long n;

	gf_carrier_close(c);
	if (gf_carrier_open(c, address, &address_bytes, why, sizeof why) != 0) {
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, why);
		gf_lost(c, why, 0, 1);
		return;
	}
	n = gf_frame_attach(frame, sizeof frame, address, address_bytes, c->memory.key, c->memory.base);
	if (n >= 0) {
		if ((c->carrier == GF_RING ? send_with_arena(c, frame, (size_t)n) : gf_control_send(c, frame, (size_t)n)) == 0) return;
		if (errno == EPIPE || errno == ECONNRESET) return; /* why the executor hung up, or that it did, is still to be read */
	}
	snprintf(why, sizeof why, "cannot send the attachment to the executor: %s", strerror(errno));
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, why);
	gf_lost(c, why, 0, 1);
}

static void attached(struct gf_conn *c, const struct gf_frame *f) {
	if (c->up || c->arena == NULL || (c->carrier == GF_OFI && c->ofi == NULL)) return;
	if (c->carrier == GF_OFI && gf_ofi_peer(c->ofi, f->address, &c->peer) != 0) {
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "libfabric does not take the executor's address");
		gf_lost(c, "libfabric does not take the executor's address", 0, 1);
		return;
	}
	gf_lock(c);
	c->peer_base = f->base;
	c->peer_key = f->key;
	c->up = 1;
	gf_carrier_try(c);
	gf_carrier_resend(c);
	gf_unlock(c);
}

/* crashed ends the request that was running; the others go back to the queue. */
static void crashed(struct gf_conn *c, const struct gf_frame *f) {
	gf_lock(c);
	gf_carrier_poll(c);
	c->up = 0;
	c->unsent = 0;
	for (uint32_t i = 0; i < gf_layout_total(&c->layout); i++) {
		struct slot *s = &c->slots[i];
		if (s->stage == STAGE_FREE) continue;
		if (f->seq != 0 && s->seq == f->seq) {
			s->stage = STAGE_SENT;
			snprintf(s->detail, sizeof s->detail, "%.120s", f->text);
			gf_complete(c, i, 0, f->code, f->signal);
		} else {
			s->stage = STAGE_PENDING;
			c->unsent++;
		}
	}
	gf_unlock(c);
}

/* failed: the code does not load. All that is in flight ends with the reason. */
static void failed(struct gf_conn *c, const struct gf_frame *f) {
	gf_dial_failed(c, GF_DIAL_FUNCTION, f->code, f->signal, f->text);
	gf_lock(c);
	for (uint32_t i = 0; c->arena != NULL && i < gf_layout_total(&c->layout); i++) {
		if (c->slots[i].stage == STAGE_FREE) continue;
		snprintf(c->slots[i].detail, sizeof c->slots[i].detail, "%.120s", f->text);
		gf_complete(c, i, 0, f->code, f->signal);
	}
	gf_unlock(c);
	gf_lost(c, f->text, 0, 1);
}

static void follow(struct gf_conn *c, const struct gf_frame *f) {
	switch (f->type) {
	case GF_ACCEPT:
		if (c->options != NULL && !c->accepted) gf_accepted(c, f);
		break;
	case GF_REFUSED:
		gf_dial_failed(c, GF_DIAL_REFUSED, f->code, 0, f->text);
		gf_lost(c, f->text, 0, 1);
		break;
	case GF_FAILED:
		failed(c, f);
		break;
	case GF_ATTACHED:
		attached(c, f);
		break;
	case GF_CRASHED_NOTICE:
		crashed(c, f);
		break;
	case GF_RESTARTED:
		if (c->arena == NULL) break;
		if (c->up) crashed(c, f); /* nothing of ours was running */
		gf_attach(c);
		break;
	default:
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, f->text);
		gf_lost(c, f->text, f->begun, f->type == GF_REVOKED);
	}
}

static void consume(struct gf_conn *c) {
	size_t used = 0;

	while (!c->gone) {
		struct gf_frame f;
		long n = gf_frame_decode(&f, c->in + used, c->in_bytes - used);
		if (n == 0) break;
		if (n < 0) {
			gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "what listens there does not speak this protocol");
			gf_lost(c, "malformed frame on the control connection", 0, 0);
			return;
		}
		used += (size_t)n;
		follow(c, &f);
	}
	memmove(c->in, c->in + used, c->in_bytes - used);
	c->in_bytes -= used;
}

int gf_control(struct gf_conn *c) {
	while (!c->gone) {
		ssize_t n = recv(c->control, c->in + c->in_bytes, sizeof c->in - c->in_bytes, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) break;
		if (n <= 0) {
			char text[160];
			snprintf(text, sizeof text, "control connection lost: %s", n == 0 ? "closed by the executor" : strerror(errno));
			gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
			gf_lost(c, text, 0, 0);
			break;
		}
		c->in_bytes += (size_t)n;
		consume(c);
	}
	return c->gone;
}
