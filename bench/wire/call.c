/* The product's C client: invocations of an echo function. */
#define _GNU_SOURCE
#include "wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gf.h"

enum { BATCH = 32, SMALL_RESULT = 64 };

struct state {
	struct gf_conn *conn;
	int64_t spin_ns;
	uint8_t *input, *output;
};

static uint8_t *contents(const char *path, uint64_t *bytes) {
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *b;

	if (fd < 0 || fstat(fd, &st) != 0) die(path, "cannot be read");
	b = malloc((size_t)st.st_size + 1);
	if (b == NULL || read(fd, b, (size_t)st.st_size) != st.st_size) die(path, "cannot be read");
	close(fd);
	*bytes = (uint64_t)st.st_size;
	return b;
}

static uint32_t first_slot(const struct state *t, uint32_t bytes) {
	const struct gf_layout *l = gf_conn_layout(t->conn);
	return bytes > l->small_bytes ? l->slots : 0;
}

static int harvest(struct state *t, struct gf_completion *done, int n, int mode) {
	while (n == 0) {
		if (mode == MODE_BLOCK) {
			int woke = gf_sleep(t->conn, 1, -1);
			if ((woke & GF_WOKE_CONTROL) != 0 && gf_control(t->conn)) die("call", "the executor is gone");
		}
		n = gf_progress(t->conn, mode == MODE_BLOCK ? 0 : 1000000, done, BATCH);
	}
	for (int i = 0; i < n; i++) {
		if (done[i].status != GF_OK) die("call", "an invocation failed");
	}
	return n;
}

/* one at a time: input copied in, result copied out */
static void ping(struct state *t, const struct job *j, struct samples *s) {
	uint32_t slot = first_slot(t, j->size);
	struct gf_completion done[BATCH];
	uint64_t begin = ticks(), last = begin;

	for (uint32_t i = 0; i < j->rounds; i++) {
		last = think(j->mode, last);
		memcpy(gf_request(t->conn, slot), t->input, j->size);
		int n = gf_call(t->conn, slot, j->size, j->size, 0, j->mode == MODE_BLOCK ? 0 : 1000000, done, BATCH);
		harvest(t, done, n, (int)j->mode);
		memcpy(t->output, gf_result(t->conn, slot), done[0].size);
		uint64_t end = ticks();
		sample(s, end - last);
		last = end;
	}
	s->total_ns = ticks_ns(last - begin);
}

/* many in flight, inputs in place: in stream mode results are of 64 bytes at most */
static void flood(struct state *t, const struct job *j, struct samples *s) {
	uint32_t slot = first_slot(t, j->size), sent = 0, ended = 0, cap = j->mode == MODE_STREAM ? SMALL_RESULT : j->size;
	struct gf_completion done[BATCH];
	uint64_t begin = ticks();

	for (; sent < j->in_flight && sent < j->rounds; sent++) gf_submit(t->conn, slot + sent, j->size, cap, 0);
	while (ended < j->rounds) {
		int n = harvest(t, done, gf_progress(t->conn, 1000000, done, BATCH), MODE_SPIN);
		ended += (uint32_t)n;
		for (int i = 0; i < n && sent < j->rounds; i++, sent++) gf_submit(t->conn, done[i].slot, j->size, cap, 0);
	}
	s->total_ns = ticks_ns(ticks() - begin);
}

static void run(void *state, const struct job *j, struct samples *s) {
	struct state *t = state;
	const struct gf_layout *l = gf_conn_layout(t->conn);

	if (j->size > l->large_bytes || j->in_flight > (j->size > l->small_bytes ? l->large : l->slots)) die("call", "larger than the connection's buffers");
	for (uint32_t i = 0; i < j->in_flight; i++) memset(gf_request(t->conn, first_slot(t, j->size) + i), j->mode == MODE_STREAM ? 's' : 'e', j->size);
	memset(t->input, 'e', j->size);
	if (j->in_flight > 1 || j->mode == MODE_STREAM) {
		flood(t, j, s);
	} else {
		ping(t, j, s);
	}
}

void product(char **argv) {
	uint64_t token_bytes = 0, code_bytes = 0;
	uint8_t digest[32];
	struct state t = {.spin_ns = atoll(argv[7])};
	struct gf_dial_options o = {.address = argv[0], .local = argv[1], .carrier = argv[2], .provider = argv[3], .host = "", .symbol = argv[6],
		.token = contents(argv[4], &token_bytes), .code = contents(argv[5], &code_bytes), .spin_ns = t.spin_ns, .slots = 16,
		.buffer_bytes = strtoull(argv[8], NULL, 10), .timeout_ns = 20000000000, .cancel_fd = -1};
	struct gf_error e;

	if (token_bytes < sizeof digest) die("call", "the token file lacks the digest");
	token_bytes -= sizeof digest; /* it stands behind the token */
	memcpy(digest, o.token + token_bytes, sizeof digest);
	o.token_bytes = (uint32_t)token_bytes;
	o.digest = digest;
	o.code_bytes = code_bytes;
	if (gf_dial(&t.conn, &o, &e) != 0) die("connect to the executor", e.text);
	t.input = calloc(1, o.buffer_bytes);
	t.output = calloc(1, o.buffer_bytes);
	if (t.input == NULL || t.output == NULL) die("call", "out of memory");
	settle(0);
	serve(run, &t);
	gf_close(t.conn);
}
