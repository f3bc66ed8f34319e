/* Dialling an executor: connect, HELLO, ACCEPT, CODE, ATTACH, ATTACHED. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

/* A peer that vanishes without a word is noticed within seconds. */
static void tune(int s) {
	int on = 1, idle = 1, interval = 1, count = 3;
	unsigned timeout = 5000;

	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(s, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
	setsockopt(s, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
	setsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static int try_address(struct gf_conn *c, const struct addrinfo *a) {
	int error = 0;
	socklen_t n = sizeof error;

	c->control = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->control < 0) return -1;
	tune(c->control);
	if (connect(c->control, a->ai_addr, a->ai_addrlen) == 0) return 0;
	if (errno == EINPROGRESS && wait_dial(c, POLLOUT) == 0) {
		getsockopt(c->control, SOL_SOCKET, SO_ERROR, &error, &n);
		if (error == 0) return 0;
		errno = error;
	}
	error = errno;
	close(c->control);
	c->control = -1;
	errno = error;
	return -1;
}

static int connect_tcp(struct gf_conn *c, const char *address) {
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
	char host[256], text[GF_TEXT_BYTES];
	const char *colon = strrchr(address, ':');
	size_t n = colon != NULL ? (size_t)(colon - address) : 0;

	if (n == 0 || n >= sizeof host) {
		snprintf(text, sizeof text, "executor address \"%.200s\": want host:port", address);
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
		return -1;
	}
	memcpy(host, address, n);
	host[n] = 0;
	if (host[0] == '[' && host[n - 1] == ']') {
		memmove(host, host + 1, n - 2);
		host[n - 2] = 0;
	}
	int rc = getaddrinfo(host, colon + 1, &hints, &all);
	for (struct addrinfo *a = all; a != NULL && c->control < 0 && !c->failed; a = a->ai_next) try_address(c, a);
	snprintf(text, sizeof text, "connect to executor at %.200s: %s", address, rc != 0 ? gai_strerror(rc) : strerror(errno));
	if (all != NULL) freeaddrinfo(all);
	if (c->control >= 0) return 0;
	gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
	return -1;
}

/* reach connects by the Unix socket where the ring may be used, otherwise by TCP. */
static int reach(struct gf_conn *c) {
	const struct gf_dial_options *o = c->options;
	struct sockaddr_storage a;
	socklen_t n = sizeof a;

	if (strcmp(o->carrier, "ofi") != 0 && connect_local(c, o->local) == 0) return 0;
	if (strcmp(o->carrier, "ring") == 0) {
		char text[GF_TEXT_BYTES];
		snprintf(text, sizeof text, "the ring needs the executor's socket %.200s on this node: %s", o->local, strerror(errno));
		gf_dial_failed(c, GF_DIAL_UNREACHABLE, 0, 0, text);
		return -1;
	}
	if (connect_tcp(c, o->address) != 0) return -1;
	if (o->host[0] != 0) {
		snprintf(c->host, sizeof c->host, "%s", o->host);
	} else if (getsockname(c->control, (struct sockaddr *)&a, &n) == 0) {
		getnameinfo((struct sockaddr *)&a, n, c->host, sizeof c->host, NULL, 0, NI_NUMERICHOST);
	}
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
