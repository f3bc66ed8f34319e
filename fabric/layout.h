/* Where the buffers of a connection's slots lie, and how a worker maps them with guard pages in between. */
#ifndef GLEANER_LAYOUT_H
#define GLEANER_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* Slots 0 to slots-1 have small buffers, the next large ones have buffers of the connection's full size. */
struct gf_layout {
	uint32_t slots;
	uint32_t large;
	uint64_t small_bytes;
	uint64_t large_bytes;
};

struct gf_place {
	uint64_t request; /* offset in the arena; GF_GAP_BYTES lie before each buffer, and a guard page behind the last */
	uint64_t result;
	uint64_t bytes; /* of each buffer */
};

/* gf_layout_make returns 0, or -1 when the numbers are out of range. */
int gf_layout_make(struct gf_layout *l, uint64_t buffer_bytes, uint32_t slots);
uint64_t gf_layout_bytes(const struct gf_layout *l);
uint32_t gf_layout_total(const struct gf_layout *l);
struct gf_place gf_layout_place(const struct gf_layout *l, uint32_t slot);

/* gf_arena makes a sealed memfd of the layout's size, to be shared, and maps it whole; -errno on failure. */
int gf_arena(const struct gf_layout *l, int *fd, uint8_t **memory);
/* gf_arena_own maps memory of this process alone, to be registered. Either asks for 2 MiB pages where large buffers fill some:
 * they are taken when the node has them and the first byte is written. */
int gf_arena_own(const struct gf_layout *l, uint8_t **memory);

/* A worker's view of an arena, with its offsets: behind each buffer lies a page that cannot be touched. */
struct gf_view {
	struct gf_layout layout;
	uint8_t *base;
	uint64_t bytes;
	struct gf_shared *shared;
	uint8_t *request[GF_MAX_TOTAL];
	uint8_t *result[GF_MAX_TOTAL];
};

/* gf_view_map checks size and seals of fd before it maps; -errno on failure. */
int gf_view_map(struct gf_view *v, const struct gf_layout *l, int fd);
/* gf_view_own takes over memory of gf_arena_own, after it has been registered: devices do not register guards. */
int gf_view_own(struct gf_view *v, const struct gf_layout *l, uint8_t *memory);
void gf_view_unmap(struct gf_view *v);
/* gf_view_behind_result says whether address lies in the guard behind a result buffer. */
int gf_view_behind_result(const struct gf_view *v, const void *address);

#endif
