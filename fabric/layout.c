#define _GNU_SOURCE
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, LARGE_PAGE = 2 << 20 };

static uint64_t pages(uint64_t bytes) { return (bytes + GF_PAGE - 1) / GF_PAGE * GF_PAGE; }

int gf_layout_make(struct gf_layout *l, uint64_t buffer_bytes, uint32_t slots) {
	if (slots < 1 || slots > GF_MAX_SLOTS || buffer_bytes < 1 || buffer_bytes > UINT32_MAX - GF_PAGE) return -1;
	memset(l, 0, sizeof *l);
	l->slots = slots;
	l->small_bytes = pages(buffer_bytes < GF_SMALL_BYTES ? buffer_bytes : GF_SMALL_BYTES);
	if (buffer_bytes > GF_SMALL_BYTES) {
		l->large_bytes = pages(buffer_bytes);
		l->large = (uint32_t)(GF_LARGE_BYTES / l->large_bytes);
		if (l->large > GF_MOST_LARGE) l->large = GF_MOST_LARGE;
		if (l->large < GF_LEAST_LARGE) l->large = GF_LEAST_LARGE;
	}
	return 0;
}

uint32_t gf_layout_total(const struct gf_layout *l) { return l->slots + l->large; }

/* pitch is how far buffers of a size lie apart. */
static uint64_t pitch(uint64_t bytes) { return GF_GAP_BYTES + bytes; }

uint64_t gf_layout_bytes(const struct gf_layout *l) {
	return GF_SHARED_BYTES + 2 * (l->slots * pitch(l->small_bytes) + l->large * pitch(l->large_bytes)) + GF_PAGE;
}

struct gf_place gf_layout_place(const struct gf_layout *l, uint32_t slot) {
	struct gf_place p = {0};
	uint64_t start = GF_SHARED_BYTES;

	if (slot < l->slots) {
		p.bytes = l->small_bytes;
		start += 2 * slot * pitch(p.bytes);
	} else {
		p.bytes = l->large_bytes;
		start += 2 * (l->slots * pitch(l->small_bytes) + (slot - l->slots) * pitch(p.bytes));
	}
	p.request = start + GF_GAP_BYTES;
	p.result = p.request + pitch(p.bytes);
	return p;
}

/* map maps fd whole, or memory without a file for -1, at a multiple of 2 MiB, as large pages need it. */
static int map(const struct gf_layout *l, int fd, uint8_t **memory) {
	uint64_t bytes = gf_layout_bytes(l), from = gf_layout_place(l, l->slots).request;
	int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED);
	uint8_t *m = mmap(NULL, bytes + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at;

	if (m == MAP_FAILED) return -errno;
	at = (uint8_t *)(((uintptr_t)m + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
	if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) {
		int error = errno;
		munmap(m, bytes + LARGE_PAGE);
		return -error;
	}
	if (at > m) munmap(m, (size_t)(at - m));
	munmap(at + bytes, (size_t)(m + LARGE_PAGE - at));
	if (l->large > 0 && l->large_bytes >= LARGE_PAGE) madvise(at + from / GF_PAGE * GF_PAGE, bytes - from, MADV_HUGEPAGE); /* a wish */
	*memory = at;
	return 0;
}

int gf_arena(const struct gf_layout *l, int *fd, uint8_t **memory) {
	int rc, f = memfd_create("gleaner-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (f < 0) return -errno;
	rc = ftruncate(f, (off_t)gf_layout_bytes(l)) != 0 || fcntl(f, F_ADD_SEALS, SEALS) != 0 ? -errno : map(l, f, memory);
	if (rc != 0) {
		close(f);
		return rc;
	}
	*fd = f;
	return 0;
}

int gf_arena_own(const struct gf_layout *l, uint8_t **memory) { return map(l, -1, memory); }

/* point fills in where the buffers are. */
static void point(struct gf_view *v) {
	for (uint32_t i = 0; i < gf_layout_total(&v->layout); i++) {
		struct gf_place p = gf_layout_place(&v->layout, i);
		v->request[i] = v->base + p.request;
		v->result[i] = v->base + p.result;
	}
	v->shared = (struct gf_shared *)v->base;
}

/* place maps one piece of fd inside the reservation. */
static int place(struct gf_view *v, int fd, uint64_t offset, uint64_t bytes) {
	void *m = mmap(v->base + offset, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
	return m == MAP_FAILED ? -errno : 0;
}

static int fill(struct gf_view *v, int fd) {
	int rc = place(v, fd, 0, GF_SHARED_BYTES);

	for (uint32_t i = 0; rc == 0 && i < gf_layout_total(&v->layout); i++) {
		struct gf_place p = gf_layout_place(&v->layout, i);
		rc = place(v, fd, p.request, p.bytes);
		if (rc == 0) rc = place(v, fd, p.result, p.bytes);
	}
	return rc;
}

int gf_view_map(struct gf_view *v, const struct gf_layout *l, int fd) {
	struct stat st;
	int rc, seals = fcntl(fd, F_GET_SEALS);
	void *m;

	memset(v, 0, sizeof *v);
	if (fstat(fd, &st) != 0) return -errno;
	if (seals < 0 || (seals & SEALS) != SEALS || (uint64_t)st.st_size < gf_layout_bytes(l)) return -EINVAL;
	v->layout = *l;
	v->bytes = gf_layout_bytes(l);
	m = mmap(NULL, v->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) return -errno;
	v->base = m;
	point(v);
	rc = fill(v, fd);
	if (rc != 0) gf_view_unmap(v);
	return rc;
}

int gf_view_own(struct gf_view *v, const struct gf_layout *l, uint8_t *memory) {
	*v = (struct gf_view){.layout = *l, .base = memory, .bytes = gf_layout_bytes(l)};
	point(v);
	for (uint32_t i = 0; i < gf_layout_total(l); i++) {
		uint64_t bytes = gf_layout_place(l, i).bytes;
		if (mprotect(v->request[i] + bytes, GF_PAGE, PROT_NONE) != 0 || mprotect(v->result[i] + bytes, GF_PAGE, PROT_NONE) != 0) return -errno;
	}
	return 0;
}

void gf_view_unmap(struct gf_view *v) {
	if (v->base != NULL) munmap(v->base, v->bytes);
	memset(v, 0, sizeof *v);
}

int gf_view_behind_result(const struct gf_view *v, const void *address) {
	const uint8_t *a = address;

	if (v->base == NULL || a < v->base || a >= v->base + v->bytes) return 0;
	for (uint32_t i = 0; i < gf_layout_total(&v->layout); i++) {
		const uint8_t *end = v->result[i] + gf_layout_place(&v->layout, i).bytes;
		if (a >= end && a < end + GF_PAGE) return 1;
	}
	return 0;
}
