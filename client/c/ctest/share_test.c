/* The parser of gleaner run's frames: whole frames, cut frames, and a million mutations under the sanitizers. */
#include <stdlib.h>
#include <string.h>

#include "../../../fabric/ctest/tap.h"
#include "../shareframe.h"

static uint8_t ready_frame[] = {31, 0, 0, 0, SHARE_READY, 0, 0, 0, /* head */
	7, 0, 0, 0, 0, 0, 0, 0, 3, 0, '4', '-', '7', 2, 0, 'n', '1', 3, 0, 'h', ':', '1', 0, 0, 5, 0, 1, 2, 0, 4, 5};
static uint8_t gone_frame[] = {17, 0, 0, 0, SHARE_GONE, 0, 0, 0, /* head */
	7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 'w', 'h', 'y', 0x55};
static uint8_t ended_frame[] = {9, 0, 0, 0, SHARE_ENDED, 0, 0, 0, 3, 0, 0, 0, 3, 0, 'e', 'n', 'd'};
static uint8_t lease_frame[] = {79, 0, 0, 0, SHARE_LEASE, 0, 0, 0, /* head */
	'G', 'L', 'S', 'H', 1, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
	9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 'f'};

static void whole(void) {
	struct share_frame f;

	ok(share_decode(&f, lease_frame, sizeof lease_frame) == sizeof lease_frame && f.lease == 42 && f.buffer_bytes == 1 << 20 && f.wanted == 8 && f.code_bytes == 9 && strcmp(f.symbol, "f") == 0 && f.digest[31] == 1, "LEASE");
	lease_frame[12] = 2;
	ok(share_decode(&f, lease_frame, sizeof lease_frame) == -1, "LEASE of another version is malformed");
	lease_frame[12] = 1;
	ok(share_decode(&f, ready_frame, sizeof ready_frame) == sizeof ready_frame && f.executor == 7 && strcmp(f.id, "4-7") == 0 && strcmp(f.node, "n1") == 0 && strcmp(f.address, "h:1") == 0 && f.local[0] == 0 && f.token_bytes == 5 && f.token[4] == 5, "READY");
	ok(share_decode(&f, gone_frame, sizeof gone_frame) == SHARE_HEAD + 17 && f.blame == 1 && strcmp(f.text, "why") == 0, "GONE, with the next frame's bytes behind it");
	gone_frame[0] = 18;
	ok(share_decode(&f, gone_frame, sizeof gone_frame) == -1, "a body longer than its fields is malformed");
	gone_frame[0] = 17;
	gone_frame[23] = 0;
	ok(share_decode(&f, gone_frame, sizeof gone_frame) == -1, "a text with a zero inside is malformed");
	gone_frame[23] = 'h';
	ok(share_decode(&f, ended_frame, sizeof ended_frame) == sizeof ended_frame && f.reason == 3 && strcmp(f.text, "end") == 0, "ENDED");
}

static void cut(void) {
	struct share_frame f;
	int good = 1;

	for (size_t n = 0; n < sizeof lease_frame; n++) good &= share_decode(&f, lease_frame, n) == 0;
	ok(good, "every cut frame asks for more");
}

static void mutations(void) {
	const struct {
		uint8_t *b;
		size_t n;
	} seeds[] = {{ready_frame, sizeof ready_frame}, {gone_frame, sizeof gone_frame}, {ended_frame, sizeof ended_frame}, {lease_frame, sizeof lease_frame}};
	struct share_frame f;
	int good = 1;

	srand(1);
	for (int i = 0; i < 1000000; i++) {
		size_t which = (size_t)rand() % 4, n = seeds[which].n;
		uint8_t *b = malloc(n); /* of exactly this size, so that reading behind it is noticed */
		memcpy(b, seeds[which].b, n);
		for (int k = rand() % 4; k >= 0; k--) b[(size_t)rand() % n] = (uint8_t)rand();
		long used = share_decode(&f, b, n);
		good &= used >= -1 && used <= (long)n;
		if (used > 0) good &= f.token_bytes <= SHARE_TOKEN && strlen(f.text) < sizeof f.text && strlen(f.symbol) < sizeof f.symbol;
		free(b);
	}
	ok(good, "a million mutations stay inside their bounds");
}

static void encoders(void) {
	uint8_t out[SHARE_OUT];

	ok(share_hello(out) == SHARE_HEAD + 8 && out[0] == 8 && memcmp(out + 8, "GLSH\1\0\0", 8) == 0, "HELLO");
	ok(share_refresh(out, 300) == SHARE_HEAD + 8 && out[4] == SHARE_REFRESH && out[8] == 44 && out[9] == 1, "REFRESH");
	ok(share_counts(out, 1, 2, 3) == SHARE_HEAD + 24 && out[8] == 1 && out[16] == 2 && out[24] == 3, "COUNTS");
}

int main(void) {
	whole();
	cut();
	mutations();
	encoders();
	return tap_end();
}
