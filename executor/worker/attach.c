#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker.h"

enum { OFI_DEPTH = 128, RING_FDS = 3 };
static const uint64_t NO_PEER = UINT64_MAX;

void worker_tell(struct worker *w, const struct gf_command *command) {
	if (send(w->command, command, sizeof *command, MSG_NOSIGNAL) < 0) _exit(1);
}

/* recount follows a change of the connections. */
static void recount(struct worker *w) {
	w->spin_ns = 0;
	w->ring_count = 0;
	for (int i = 0; i < GF_MAX_CONNECTIONS; i++) {
		struct connection *c = &w->connections[i];
		if (c->used && c->spin_ns < 0) w->spin_ns = INT64_MAX;
		if (c->used && c->spin_ns > w->spin_ns) w->spin_ns = c->spin_ns;
		if (c->used && !c->dead && c->carrier == GF_RING) w->rings[w->ring_count++] = c;
	}
}

static void detach(struct worker *w, struct connection *c) {
	if (!c->used) return;
	if (c->carrier == GF_OFI) {
		gf_ofi_unregister(&c->memory);
		if (c->peer != NO_PEER) gf_ofi_forget(w->ofi, c->peer);
	}
	gf_view_unmap(&c->view);
	if (c->worker_wake >= 0) close(c->worker_wake);
	if (c->client_wake >= 0) close(c->client_wake);
	memset(c, 0, sizeof *c);
	recount(w);
}

static int attach_ring(struct connection *c, const struct gf_layout *l, const int fds[RING_FDS], char *why, size_t n) {
	int rc;

	if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0) {
		snprintf(why, n, "the attachment lacks its descriptors");
		return -1;
	}
	rc = gf_view_map(&c->view, l, fds[0]);
	if (rc != 0) {
		snprintf(why, n, "map the client's buffers: %s", strerror(-rc));
		return -1;
	}
	c->requests.entries = c->view.shared->request;
	c->replies.entries = c->view.shared->reply;
	return 0;
}

int worker_open_fabric(struct worker *w, char *why, size_t why_bytes) {
	struct gf_ofi_options o = {.provider = w->provider, .host = w->host, .depth = OFI_DEPTH, .bells = GF_MAX_CONNECTIONS * (GF_MAX_TOTAL + 1)};

	return w->ofi != NULL ? 0 : gf_ofi_open(&w->ofi, &o, why, why_bytes);
}

/* like_own says whether a client's address has the form of the endpoint's own: libfabric takes it at its word. */
static int like_own(struct gf_ofi *ofi, const struct gf_command *in, char *why, size_t n) {
	uint8_t own[GF_ADDRESS_BYTES];
	uint16_t family, theirs;
	uint32_t bytes;

	if (gf_ofi_name(ofi, own, &bytes, why, n) != 0) return 0;
	memcpy(&family, own, sizeof family);
	memcpy(&theirs, in->address, sizeof theirs);
	if (in->address_bytes == bytes && (theirs == family || (family != AF_INET && family != AF_INET6))) return 1;
	snprintf(why, n, "the client's fabric address has another form than the executor's");
	return 0;
}

static int attach_ofi(struct worker *w, struct connection *c, const struct gf_layout *l, const struct gf_command *in, char *why, size_t n) {
	uint8_t *arena;
	int rc;

	if (worker_open_fabric(w, why, n) != 0) return -1;
	rc = gf_arena_own(l, &arena);
	if (rc == 0) {
		c->view = (struct gf_view){.base = arena, .bytes = gf_layout_bytes(l)}; /* detach unmaps it */
		if (gf_ofi_register(w->ofi, &c->memory, arena, gf_layout_bytes(l), why, n) != 0) return -1;
		rc = gf_view_own(&c->view, l, arena);
	}
	if (rc != 0) {
		snprintf(why, n, "make buffers: %s", strerror(-rc));
		return -1;
	}
	if (!like_own(w->ofi, in, why, n)) return -1;
	if (gf_ofi_peer(w->ofi, in->address, &c->peer) != 0) {
		snprintf(why, n, "libfabric does not take the client's address");
		return -1;
	}
	c->cookie = in->cookie;
	c->peer_key = in->key;
	c->peer_base = in->base;
	return 0;
}

static void attach(struct worker *w, const struct gf_command *in, int fds[RING_FDS]) {
	struct gf_command out = {.op = GF_OP_ATTACHED, .connection = in->connection};
	struct connection *c;
	struct gf_layout l;
	int rc = -1;

	if (in->connection >= GF_MAX_CONNECTIONS || gf_layout_make(&l, in->buffer_bytes, in->slots) != 0) {
		snprintf(out.text, sizeof out.text, "connection out of range");
	} else {
		c = &w->connections[in->connection];
		detach(w, c);
		*c = (struct connection){.used = 1, .id = in->connection, .carrier = in->carrier, .worker_wake = fds[1], .client_wake = fds[2], .spin_ns = in->spin_ns, .peer = NO_PEER};
		fds[1] = fds[2] = -1;
		int again[RING_FDS] = {fds[0], c->worker_wake, c->client_wake};
		if (in->carrier == GF_RING) {
			rc = attach_ring(c, &l, again, out.text, sizeof out.text);
		} else {
			rc = attach_ofi(w, c, &l, in, out.text, sizeof out.text);
			if (rc == 0) rc = gf_ofi_name(w->ofi, out.address, &out.address_bytes, out.text, sizeof out.text);
			out.key = c->memory.key;
			out.base = c->memory.base;
		}
		if (rc != 0) c->dead = 1;
		recount(w);
	}
	out.status = rc == 0 ? GF_OK : GF_BAD_REQUEST;
	worker_tell(w, &out);
}

/* receive takes one command with its descriptors: 1, or 0 when there is none. */
static int receive(struct worker *w, struct gf_command *in, int fds[RING_FDS]) {
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * RING_FDS)];
	} u;
	struct iovec v = {.iov_base = in, .iov_len = sizeof *in};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
	ssize_t n = recvmsg(w->command, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
	/* A function that has used up the descriptors leaves none for a client: another worker has its own. */
	if (n != (ssize_t)sizeof *in || (m.msg_flags & MSG_CTRUNC) != 0) _exit(1);
	for (int i = 0; i < RING_FDS; i++) fds[i] = -1;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h != NULL && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len <= CMSG_LEN(sizeof(int) * RING_FDS))
		memcpy(fds, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
	return 1;
}

void worker_commands(struct worker *w) {
	struct gf_command in;
	int fds[RING_FDS];

	w->seen_commands = atomic_load(&w->state->commands);
	while (receive(w, &in, fds)) {
		if (in.op == GF_OP_LOAD) worker_load(w, &in, fds[0]);
		if (in.op == GF_OP_FABRIC) {
			if (w->sealed && w->ofi == NULL) _exit(GF_EXIT_AGAIN); /* between two requests: the next worker opens it first */
			worker_open_fabric(w, in.text, sizeof in.text); /* an attachment reports failure */
			worker_tell(w, &in);
		}
		if (in.op == GF_OP_ATTACH) attach(w, &in, fds);
		if (in.op == GF_OP_DETACH && in.connection < GF_MAX_CONNECTIONS) detach(w, &w->connections[in.connection]);
		for (int i = 0; i < RING_FDS; i++) {
			if (fds[i] >= 0) close(fds[i]);
		}
	}
}
