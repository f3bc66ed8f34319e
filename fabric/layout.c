#define _GNU_SOURCE
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static uint64_t pages(uint64_t bytes) { return (bytes + GF_PAGE - 1) / GF_PAGE * GF_PAGE; }

int gf_layout_make(struct gf_layout *l, uint64_t buffer_bytes, uint32_t slots) {
	if (slots < 1 || slots > GF_MAX_SLOTS || buffer_bytes < 1 || buffer_bytes > UINT32_MAX - GF_PAGE) return -1;
	memset(l, 0, sizeof *l);
	l->slots = slots;
	l->small_bytes = pages(buffer_bytes < GF_SMALL_BYTES ? buffer_bytes : GF_SMALL_BYTES);
	if (buffer_bytes > GF_SMALL_BYTES) {
		l->large = GF_LARGE_SLOTS;
		l->large_bytes = pages(buffer_bytes);
	}
	return 0;
}

uint32_t gf_layout_total(const struct gf_layout *l) { return l->slots + l->large; }

uint64_t gf_layout_bytes(const struct gf_layout *l) {
	return GF_SHARED_BYTES + 2 * (l->slots * l->small_bytes + l->large * l->large_bytes);
}

struct gf_place gf_layout_place(const struct gf_layout *l, uint32_t slot) {
	struct gf_place p = {0};
	uint64_t start = GF_SHARED_BYTES;

	if (slot < l->slots) {
		p.bytes = l->small_bytes;
		start += 2 * slot * l->small_bytes;
	} else {
		p.bytes = l->large_bytes;
		start += 2 * (l->slots * l->small_bytes + (slot - l->slots) * l->large_bytes);
	}
	p.request = start;
	p.result = start + p.bytes;
	return p;
}

int gf_arena(const struct gf_layout *l, int *fd, uint8_t **memory) {
	uint64_t bytes = gf_layout_bytes(l);
	int error, f = memfd_create("gleaner-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *m;

	if (f < 0) return -errno;
	if (ftruncate(f, (off_t)bytes) != 0 || fcntl(f, F_ADD_SEALS, SEALS) != 0) goto fail;
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	if (m == MAP_FAILED) goto fail;
	*fd = f;
	*memory = m;
	return 0;
fail:
	error = errno;
	close(f);
	return -error;
}

/* place maps one piece of fd at a fixed address inside the reservation. */
static int place(uint8_t *at, uint64_t bytes, int fd, uint64_t offset) {
	void *m = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
	return m == MAP_FAILED ? -errno : 0;
}

static int fill(struct gf_view *v, int fd) {
	uint8_t *at = v->base;
	int rc = place(at, GF_SHARED_BYTES, fd, 0);

	v->shared = (struct gf_shared *)at;
	at += GF_SHARED_BYTES + GF_PAGE;
	for (uint32_t i = 0; rc == 0 && i < gf_layout_total(&v->layout); i++) {
		struct gf_place p = gf_layout_place(&v->layout, i);
		v->request[i] = at;
		rc = place(at, p.bytes, fd, p.request);
		at += p.bytes + GF_PAGE;
		if (rc != 0) break;
		v->result[i] = at;
		rc = place(at, p.bytes, fd, p.result);
		at += p.bytes + GF_PAGE;
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
	v->bytes = gf_layout_bytes(l) + (uint64_t)(1 + 2 * gf_layout_total(l)) * GF_PAGE;
	m = mmap(NULL, v->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) return -errno;
	v->base = m;
	rc = fill(v, fd);
	if (rc != 0) gf_view_unmap(v);
	return rc;
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
