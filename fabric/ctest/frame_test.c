/* The frame parser: whole frames, cut frames, and a million mutations under the sanitizers. */
#include <stdlib.h>
#include <string.h>

#include "../frame.h"
#include "tap.h"

static uint8_t accept_frame[] = {
	34, 0, 0, 0, GF_ACCEPT, 0, 0, 0, /* head */
	2, 0, 1, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 't', 'c', 'p', ';', 'x', 'x'};
static uint8_t crashed_frame[] = {
	30, 0, 0, 0, GF_CRASHED_NOTICE, 0, 0, 0, /* head */
	9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11, 0, 0, 0, 4, 0, 'b', 'a', 'n', 'g'};
static uint8_t attached_frame[] = {22, 0, 0, 0, GF_ATTACHED, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 2, 3, 4};

static void whole(void) {
	struct gf_frame f;

	ok(gf_frame_decode(&f, accept_frame, sizeof accept_frame) == GF_FRAME_HEAD + 34 && f.carrier == GF_OFI && f.need_code == 1 && f.slots == 16 && strcmp(f.provider, "tcp;") == 0, "ACCEPT, with the next frame's bytes behind it");
	accept_frame[0] = 36;
	ok(gf_frame_decode(&f, accept_frame, sizeof accept_frame) == -1, "a body longer than its fields is malformed");
	accept_frame[0] = 34;
	ok(gf_frame_decode(&f, crashed_frame, sizeof crashed_frame) == sizeof crashed_frame && f.seq == 9 && f.code == GF_CRASHED && f.signal == 11 && strcmp(f.text, "bang") == 0, "CRASHED");
	attached_frame[0] = 21;
	ok(gf_frame_decode(&f, attached_frame, sizeof attached_frame) == -1, "ATTACHED with a wrong size is malformed");
	attached_frame[0] = 22;
	ok(gf_frame_decode(&f, attached_frame, sizeof attached_frame) == sizeof attached_frame && f.key == 1 && f.base == 2 && f.address_bytes == 4, "ATTACHED");
}

static void cut(void) {
	struct gf_frame f;
	int good = 1;

	for (size_t n = 0; n < sizeof crashed_frame; n++) good &= gf_frame_decode(&f, crashed_frame, n) == 0;
	ok(good, "every cut frame asks for more");
}

static void mutations(void) {
	const struct {
		uint8_t *b;
		size_t n;
	} seeds[] = {{accept_frame, sizeof accept_frame}, {crashed_frame, sizeof crashed_frame}, {attached_frame, sizeof attached_frame}};
	struct gf_frame f;
	int good = 1;

	srand(1);
	for (int i = 0; i < 1000000; i++) {
		size_t which = (size_t)rand() % 3, n = seeds[which].n;
		uint8_t *b = malloc(n); /* of exactly this size, so that reading behind it is noticed */
		memcpy(b, seeds[which].b, n);
		for (int k = rand() % 4; k >= 0; k--) b[(size_t)rand() % n] = (uint8_t)rand();
		long used = gf_frame_decode(&f, b, n);
		good &= used >= -1 && used <= (long)n;
		if (used > 0) good &= strlen(f.text) < sizeof f.text && f.address_bytes <= GF_ADDRESS_BYTES;
		free(b);
	}
	ok(good, "a million mutations stay inside their bounds");
}

static void encoders(void) {
	uint8_t out[GF_FRAME_HEAD + GF_FRAME_MAX], digest[32] = {0};
	struct gf_hello h = {.token = digest, .token_bytes = 32, .digest = digest, .symbol = "run", .provider = ""};

	ok(gf_frame_hello(out, sizeof out, &h) == GF_FRAME_HEAD + 28 + 32 + 34 + 5 + 2, "HELLO has its length");
	ok(gf_frame_hello(out, 40, &h) == -1, "HELLO refuses a small buffer");
	h.token_bytes = GF_TOKEN_MAX + 1;
	ok(gf_frame_hello(out, sizeof out, &h) == -1, "HELLO refuses a long token");
}

int main(void) {
	whole();
	cut();
	mutations();
	encoders();
	return tap_end();
}
