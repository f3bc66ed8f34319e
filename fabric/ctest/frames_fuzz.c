/* A stream of frames as both parsers of C see it: what an executor says on the control connection, and what gleaner run says. Built
 * with libFuzzer, or with mutate.c, which calls LLVMFuzzerTestOneInput likewise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../client/c/shareframe.h"
#include "../frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition) {
	if (!condition) abort();
}

/* control decodes one frame, of which all that it holds is inside its bounds. */
static long control(const uint8_t *in, size_t n) {
	struct gf_frame f;
	long used = gf_frame_decode(&f, in, n);

	if (used <= 0) return used;
	must(f.type >= GF_ACCEPT && f.type <= GF_FAILED);
	must(memchr(f.text, 0, sizeof f.text) != NULL && memchr(f.provider, 0, sizeof f.provider) != NULL && f.address_bytes <= sizeof f.address);
	must(f.type != GF_ACCEPT || (f.slots >= 1 && f.slots <= GF_MAX_SLOTS));
	return used;
}

static long share(const uint8_t *in, size_t n) {
	struct share_frame f;
	long used = share_decode(&f, in, n);

	if (used <= 0) return used;
	must(f.type >= SHARE_LEASE && f.type <= SHARE_ENDED && f.token_bytes <= sizeof f.token);
	must(memchr(f.text, 0, sizeof f.text) != NULL && memchr(f.symbol, 0, sizeof f.symbol) != NULL && memchr(f.address, 0, sizeof f.address) != NULL);
	must(memchr(f.local, 0, sizeof f.local) != NULL && memchr(f.node, 0, sizeof f.node) != NULL && memchr(f.id, 0, sizeof f.id) != NULL);
	return used;
}

/* stream takes frame after frame, each from memory of exactly its size, so that reading behind it is noticed. */
static void stream(long decode(const uint8_t *in, size_t n), const uint8_t *data, size_t n) {
	while (n > 0) {
		uint8_t *copy = malloc(n);
		must(copy != NULL);
		memcpy(copy, data, n);
		long used = decode(copy, n);
		free(copy);
		must(used >= -1 && used <= (long)n);
		if (used <= 0) return;
		copy = malloc((size_t)used);
		must(copy != NULL);
		memcpy(copy, data, (size_t)used);
		must(decode(copy, (size_t)used) == used); /* what follows a frame does not matter */
		must(decode(copy, (size_t)used - 1) == 0); /* and a cut one asks for more */
		free(copy);
		data += used;
		n -= (size_t)used;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	stream(control, data, n);
	stream(share, data, n);
	return 0;
}
