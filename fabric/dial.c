/* Dialling an executor: connect, HELLO, ACCEPT, CODE, ATTACH, ATTACHED. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"

static int milliseconds_left(const struct gf_conn *c) {
	int64_t left = (c->give_up - gf_now()) / 1000000;
	if (left < 0) return 0;
	return left > 1000000 ? 1000000 : (int)left + 1;
}

/* wait_dial waits for the control connection: 0, or -1 when time is over or the caller has cancelled. */
static int wait_dial(struct gf_conn *c, short events) {
	struct pollfd p[2] = {{.fd = c->control, .events = events}, {.fd = c->cancel, .events = POLLIN}};
	int n = poll(p, 2, milliseconds_left(c));

	if (n > 0 && p[1].revents == 0) return 0;
	if (n < 0 && errno == EINTR) return 0;
	gf_dial_failed(c, n == 0 ? GF_DIAL_TIMEOUT : GF_DIAL_CANCELLED, 0, 0, n == 0 ? "the executor does not answer in time" : "cancelled");
	return -1;
}

static int connect_local(struct gf_conn *c, const char *path) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s;

	if (path[0] == 0 || strlen(path) >= sizeof a.sun_path) return -1;
	memcpy(a.sun_path, path, strlen(path) + 1);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0) return -1;
	if (connect(s, (struct sockaddr *)&a, sizeof a) != 0) {
		close(s);
		return -1;
	}
	c->control = s;
	c->local = 1;
	return 0;
}

/* carried takes an address apart: how to come by a connection that carries the bytes to the executor, and this node's host. */
static int carried(struct gf_conn *c, const char *address, char *path, size_t path_bytes, uint64_t *number) {
	const char *host = strchr(address, '|'), *last = host != NULL ? strchr(host + 1, '|') : NULL;
	size_t n = host != NULL ? (size_t)(host - address) : 0;

	if (n == 0 || n >= path_bytes) return -1;
	memcpy(path, address, n);
	path[n] = 0;
	n = last != NULL ? (size_t)(last - host - 1) : strlen(host + 1);
	if (n >= sizeof c->host) return -1;
	memcpy(c->host, host + 1, n);
	c->host[n] = 0;
	*number = last != NULL ? strtoull(last + 1, NULL, 10) : 0;
	return 0;
}

static int connect_carried(struct gf_conn *c, const char *address) {
	char path[256], text[GF_TEXT_BYTES];
	uint64_t number;

	errno = EINVAL;
	if (carried(c, address, path, sizeof path, &number) == 0) {
		if (strncmp(path, "fd:", 3) == 0) {
			c->control = fcntl(atoi(path + 3), F_DUPFD_CLOEXEC, 0);
			if (c->control >= 0 && fcntl(c->control, F_SETFL, O_NONBLOCK) == 0) return 0;
		} else if (strncmp(path, "unix:", 5) == 0 && connect_local(c, path + 5) == 0) {
			c->local = 0;
			if (send(c->control, &number, sizeof number, MSG_NOSIGNAL) == sizeof number) return 0;
		}
	}
	snprintf(text, sizeof text, "executor at \"%.200s\" cannot be reached: %s", address, strerror(errno));
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
	return -1;
}

/* reach connects by the Unix socket where the ring may be used, otherwise by whoever carries the connection. */
static int reach(struct gf_conn *c) {
	const struct gf_dial_options *o = c->options;

	if (strcmp(o->carrier, "ofi") != 0 && connect_local(c, o->local) == 0) return 0;
	if (strcmp(o->carrier, "ring") == 0) {
		char text[GF_TEXT_BYTES];
		snprintf(text, sizeof text, "the ring needs the executor's socket %.200s on this node: %s", o->local, strerror(errno));
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
		return -1;
	}
	if (connect_carried(c, o->address) != 0) return -1;
	if (o->host[0] != 0) snprintf(c->host, sizeof c->host, "%s", o->host);
	return 0;
}

static int hello(struct gf_conn *c) {
	const struct gf_dial_options *o = c->options;
	struct gf_hello h = {.carriers = c->local ? 1u << GF_RING : 1u << GF_OFI, .buffer_bytes = o->buffer_bytes, .slots = o->slots, .spin_ns = o->spin_ns,
		.token = o->token, .token_bytes = o->token_bytes, .digest = o->digest, .symbol = o->symbol, .provider = o->provider};
	uint8_t frame[GF_FRAME_HEAD + GF_FRAME_MAX];
	long n = gf_frame_hello(frame, sizeof frame, &h);

	if (n < 0) {
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "token or symbol too long");
		return -1;
	}
	if (gf_control_send(c, frame, (size_t)n) == 0) return 0;
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "connection lost");
	return -1;
}

static int upload(struct gf_conn *c) {
	uint8_t head[GF_FRAME_HEAD];

	if (c->options->code_bytes == 0 || c->options->code_bytes > UINT32_MAX) {
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "the executor lacks the library, and none was given");
		return -1;
	}
	gf_frame_code_head(head, (uint32_t)c->options->code_bytes);
	if (gf_control_send(c, head, sizeof head) == 0 && gf_control_send(c, c->options->code, c->options->code_bytes) == 0) return 0;
	gf_control(c); /* it may have said why */
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "connection lost while sending the library");
	return -1;
}

static int prepare(struct gf_conn *c, const struct gf_frame *f) {
	if (gf_layout_make(&c->layout, f->buffer_bytes, f->slots) != 0 || f->buffer_bytes > c->options->buffer_bytes) return -EPROTO;
	int rc = f->carrier == GF_RING ? gf_arena(&c->layout, &c->arena_fd, &c->arena) : gf_arena_own(&c->layout, &c->arena);
	if (rc != 0) return rc;
	c->shared = (struct gf_shared *)c->arena;
	c->worker_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->client_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return c->worker_wake < 0 || c->client_wake < 0 ? -errno : 0;
}

void gf_accepted(struct gf_conn *c, const struct gf_frame *f) {
	char text[GF_TEXT_BYTES];
	int rc;

	c->accepted = 1;
	c->carrier = (int)f->carrier;
	c->connection = f->connection;
	c->cookie = f->cookie;
	snprintf(c->provider, sizeof c->provider, "%s", f->provider);
	if (f->need_code && upload(c) != 0) return;
	rc = prepare(c, f);
	if (rc != 0) {
		snprintf(text, sizeof text, "make buffers for the executor: %s", strerror(-rc));
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
		return;
	}
	gf_attach(c);
}

int gf_dial(struct gf_conn **out, const struct gf_dial_options *options, struct gf_error *e) {
	struct gf_conn *c = calloc(1, sizeof *c);

	*out = NULL;
	if (c == NULL) {
		*e = (struct gf_error){.kind = GF_DIAL_UNREACHABLE, .text = "out of memory"};
		return -1;
	}
	atomic_flag_clear(&c->lock);
	c->control = c->arena_fd = c->worker_wake = c->client_wake = -1;
	c->cancel = options->cancel_fd;
	c->options = options;
	c->give_up = gf_now() + options->timeout_ns;
	c->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (reach(c) == 0 && hello(c) == 0) {
		while (!c->up && !c->failed && wait_dial(c, POLLIN) == 0) gf_control(c);
	}
	c->options = NULL;
	c->cancel = -1;
	if (c->up && !c->gone && !c->failed) {
		*out = c;
		return 0;
	}
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, "the executor went away");
	*e = c->failure;
	gf_close(c);
	return -1;
}
