/* Slots do not overlap, and guards lie behind every buffer. */
#define _GNU_SOURCE
#include <stdio.h>
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

/* A connection has fewer large slots the larger they are, and two at least. */
static void counts(void) {
	static const struct { uint64_t buffer; uint32_t large; } wanted[] = {
		{GF_SMALL_BYTES, 0}, {GF_SMALL_BYTES + 1, 4}, {1 << 20, 4}, {(1 << 20) + 1, 3}, {2 << 20, 2}, {1U << 30, 2},
	};

	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		struct gf_layout l;
		ok(gf_layout_make(&l, wanted[i].buffer, 1) == 0 && l.large == wanted[i].large, "large slots");
	}
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
	gf_layout_make(&l, 8 << 20, 3);
	ok(gf_view_map(&v, &l, fd) != 0, "memory that is too small is refused");
	munmap(memory, 1);
	close(plain);
	close(fd);
}

/* own is memory of one process: large buffers in large pages, where the kernel gives them, and guards as in a shared view. */
static void own(void) {
	struct gf_layout l;
	struct gf_view v;
	uint8_t *memory;
	int good = 1;

	gf_layout_make(&l, 8 << 20, 3);
	ok(gf_arena_own(&l, &memory) == 0, "memory of its own");
	memset(memory, 1, gf_layout_bytes(&l));
	ok(gf_view_own(&v, &l, memory) == 0, "becomes a view");
	for (uint32_t i = 0; i < gf_layout_total(&l); i++) {
		struct gf_place p = gf_layout_place(&l, i);
		memset(v.request[i] - sizeof(struct gf_message), 7, sizeof(struct gf_message) + p.bytes);
		memset(v.result[i] - sizeof(struct gf_message), 7, sizeof(struct gf_message) + p.bytes);
		good &= v.request[i] == memory + p.request && v.result[i] == memory + p.result;
		good &= gf_view_behind_result(&v, v.result[i] + p.bytes);
	}
	ok(good, "messages fit before each buffer");
	gf_view_unmap(&v);
}

/* mapped sums what /proc/self/smaps says of the mappings inside a range: KiB in large pages, and whether any is wished to be. */
static int mapped(const uint8_t *from, const uint8_t *to, long *large) {
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long begin = 0, end = 0;
	int wished = 0;
	char line[512];
	long kib;

	*large = 0;
	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		unsigned long a, b;
		if (sscanf(line, "%lx-%lx ", &a, &b) == 2) begin = a, end = b;
		if (begin < (unsigned long)from || end > (unsigned long)to) continue;
		if (sscanf(line, "AnonHugePages: %ld", &kib) == 1) *large += kib;
		if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " hg") != NULL) wished = 1;
	}
	if (f != NULL) fclose(f);
	return wished;
}

static void large_pages(void) {
	char how[128] = "no such file";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	struct gf_layout l;
	uint8_t *memory;
	long large;

	if (f != NULL && fgets(how, sizeof how, f) == NULL) how[0] = 0;
	if (f != NULL) fclose(f);
	how[strcspn(how, "\n")] = 0;
	if (strstr(how, "[madvise]") == NULL && strstr(how, "[always]") == NULL) {
		printf("ok %d - # SKIP the node gives no large pages: transparent_hugepage/enabled: %s\n", ++tap_count, how);
		return;
	}
	gf_layout_make(&l, 8 << 20, 3);
	if (gf_arena_own(&l, &memory) != 0) return;
	memset(memory, 1, gf_layout_bytes(&l));
	int wished = mapped(memory, memory + gf_layout_bytes(&l), &large);
	printf("# %ld KiB of %lu in large pages, transparent_hugepage/enabled: %s\n", large, (unsigned long)(gf_layout_bytes(&l) / 1024), how);
	ok(wished, "large buffers are to be in large pages");
	munmap(memory, gf_layout_bytes(&l));
	gf_layout_make(&l, 1 << 20, 3);
	if (gf_arena_own(&l, &memory) != 0) return;
	ok(!mapped(memory, memory + gf_layout_bytes(&l), &large), "small ones are not: the first byte would cost 2 MiB");
	munmap(memory, gf_layout_bytes(&l));
}

int main(void) {
	struct gf_layout l;

	places(1, 1);
	places(64 * 1024, 16);
	places(64 * 1024 + 1, 64);
	places((uint64_t)1 << 30, 16);
	ok(gf_layout_make(&l, 0, 1) != 0 && gf_layout_make(&l, 1, 0) != 0 && gf_layout_make(&l, 1, 65) != 0 && gf_layout_make(&l, UINT32_MAX, 1) != 0, "limits");
	counts();
	guards();
	own();
	large_pages();
	return tap_end();
}
