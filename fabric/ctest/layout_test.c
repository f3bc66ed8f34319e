/* Slots do not overlap, and guards lie behind every buffer. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../layout.h"
#include "tap.h"

static void places(uint64_t buffer, uint32_t slots) {
	struct gf_layout l;
	uint64_t at = GF_SHARED_BYTES + GF_GAP_BYTES;
	int good = gf_layout_make(&l, buffer, slots) == 0;

	for (uint32_t i = 0; good && i < gf_layout_total(&l); i++) {
		struct gf_place p = gf_layout_place(&l, i);
		good &= p.request == at && p.result == at + p.bytes + GF_GAP_BYTES && p.bytes % GF_PAGE == 0;
		at = p.result + p.bytes + GF_GAP_BYTES;
	}
	ok(good && at - GF_GAP_BYTES + GF_PAGE == gf_layout_bytes(&l), "slots follow each other and fill the arena");
	ok(l.large == 0 || l.large_bytes >= buffer, "large slots hold the buffer");
}

static void guards(void) {
	struct gf_layout l;
	struct gf_view v;
	uint8_t *memory;
	int fd, plain = memfd_create("plain", 0), good = 1;

	gf_layout_make(&l, 1 << 20, 3);
	ok(gf_arena(&l, &fd, &memory) == 0, "arena");
	ok(gf_view_map(&v, &l, fd) == 0, "view");
	for (uint32_t i = 0; i < gf_layout_total(&l); i++) {
		struct gf_place p = gf_layout_place(&l, i);
		memset(v.result[i], 7, p.bytes);
		good &= memory[p.result] == 7 && memory[p.result + p.bytes - 1] == 7;
		good &= gf_view_behind_result(&v, v.result[i] + p.bytes) && !gf_view_behind_result(&v, v.result[i] + p.bytes - 1);
		good &= !gf_view_behind_result(&v, v.request[i] + p.bytes);
	}
	ok(good, "the view is the arena, and knows its guards");
	gf_view_unmap(&v);
	ok(ftruncate(plain, (off_t)gf_layout_bytes(&l)) == 0 && gf_view_map(&v, &l, plain) != 0, "memory without seals is refused");
	gf_layout_make(&l, 2 << 20, 3);
	ok(gf_view_map(&v, &l, fd) != 0, "memory that is too small is refused");
	munmap(memory, 1);
	close(plain);
	close(fd);
}

int main(void) {
	struct gf_layout l;

	places(1, 1);
	places(64 * 1024, 16);
	places(64 * 1024 + 1, 64);
	places((uint64_t)1 << 30, 16);
	ok(gf_layout_make(&l, 0, 1) != 0 && gf_layout_make(&l, 1, 0) != 0 && gf_layout_make(&l, 1, 65) != 0 && gf_layout_make(&l, UINT32_MAX, 1) != 0, "limits");
	guards();
	return tap_end();
}
