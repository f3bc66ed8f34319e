/* The frame against the byte vectors that Go's api/gate is held to, and against noise. Run in the repository's root. */
#include "../frame.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static const char claim_cores[] = "0-2,5", claim_node[] = "n01";

static const struct gl_frame claim = {
	.kind = GL_CLAIM, .flags = GL_FLAG_SHARE_NO, .job = 4711, .step = 0xfffffffc, .uid = 1000, .mib = 2048, .nanos = 1795410956000000001,
	.cores = {claim_cores, 5}, .node = {claim_node, 3},
};
static const struct gl_frame warn = {
	.kind = GL_WARN, .job = 4294967295U, .step = GL_STEP_NONE, .uid = 0, .nanos = 1, .gpus = {"0,1", 3}, .node = {claim_node, 3},
};
static const struct gl_frame blunt = {
	.kind = GL_CLAIM, .flags = GL_FLAG_BLUNT, .job = 1, .step = GL_STEP_NONE, .uid = 4294967295U, .mib = GL_MEMORY_UNKNOWN,
	.node = {claim_node, 3},
};
static const struct gl_frame done = {.kind = GL_DONE, .nanos = 1500000, .evicted = 8};

static size_t load(const char *name, uint8_t *buf, size_t cap)
{
	char path[256];
	snprintf(path, sizeof path, "api/gate/testdata/%s", name);
	FILE *in = fopen(path, "rb");
	if (in == NULL)
		return 0;
	size_t n = fread(buf, 1, cap, in);
	fclose(in);
	return n;
}

static int text_equal(struct gl_text a, struct gl_text b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static int equal(const struct gl_frame *a, const struct gl_frame *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->job == b->job && a->step == b->step && a->uid == b->uid &&
	       a->mib == b->mib && a->nanos == b->nanos && a->evicted == b->evicted && text_equal(a->cores, b->cores) &&
	       text_equal(a->gpus, b->gpus) && text_equal(a->node, b->node);
}

static void vector(const char *name, const struct gl_frame *want)
{
	uint8_t file[GL_FRAME_MAX + 1], made[GL_FRAME_MAX];
	struct gl_frame got;
	size_t n = load(name, file, sizeof file), size = gl_frame_encode(want, made, sizeof made);
	OK(n > 0 && n == size && memcmp(file, made, n) == 0, "%s is what we write", name);
	OK(n > 0 && gl_frame_decode(file, n, &got) == (ssize_t)n && equal(&got, want), "%s is what we read", name);
	int waits = 1;
	for (size_t i = 0; i < n; i++) {
		uint8_t *cut = malloc(i + 1); /* an exact block, so that ASan sees a read beyond it */
		memcpy(cut, file, i);
		waits &= gl_frame_decode(cut, i, &got) == 0;
		free(cut);
	}
	OK(waits, "%s cut short waits for more", name);
}

static void refused(const char *what, size_t at, uint8_t byte)
{
	uint8_t buf[GL_FRAME_MAX];
	struct gl_frame got;
	size_t n = gl_frame_encode(&claim, buf, sizeof buf);
	buf[at] = byte;
	OK(gl_frame_decode(buf, n, &got) == -1, "%s is malformed", what);
}

static void noise(void)
{
	int sane = 1;
	unsigned seed = 1;
	for (int round = 0; round < 200000; round++) {
		uint8_t buf[GL_FRAME_MAX];
		struct gl_frame got;
		size_t n = gl_frame_encode(round & 1 ? &claim : &warn, buf, sizeof buf);
		for (int i = 0; i < 3; i++)
			buf[(unsigned)rand_r(&seed) % n] = (uint8_t)rand_r(&seed);
		size_t cut = (unsigned)rand_r(&seed) % (n + 1);
		uint8_t *exact = malloc(cut ? cut : 1);
		memcpy(exact, buf, cut);
		ssize_t r = gl_frame_decode(exact, cut, &got);
		sane &= r >= -1 && r <= (ssize_t)cut;
		if (r > 0)
			sane &= got.node.at + got.node.len == (char *)exact + r;
		free(exact);
	}
	OK(sane, "200000 damaged frames are read within their bounds");
}

int main(void)
{
	uint8_t buf[GL_FRAME_MAX];
	char big[GL_FRAME_MAX];
	struct gl_frame f = claim;

	vector("claim.bin", &claim);
	vector("warn.bin", &warn);
	vector("blunt.bin", &blunt);
	vector("done.bin", &done);
	refused("a wrong magic", 3, '2');
	refused("a wrong length", 8, 0xff);
	refused("an enormous length", 11, 0xff);
	refused("a list beyond the frame", 45, 0x10);
	memset(big, '1', sizeof big);
	f.cores = (struct gl_text){big, sizeof big};
	OK(gl_frame_encode(&f, buf, sizeof buf) == 0, "a list too long for a frame is not written");
	f.cores.len = GL_FRAME_MAX - GL_FRAME_HEADER - 3;
	OK(gl_frame_encode(&f, buf, sizeof buf) == GL_FRAME_MAX, "the longest frame is written");
	OK(gl_frame_encode(&f, buf, sizeof buf - 1) == 0, "nothing is written beyond the buffer");
	noise();
	return tap_end();
}
