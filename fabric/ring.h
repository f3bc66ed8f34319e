/* The ring carrier: two single-producer single-consumer rings in an arena. It moves descriptors; payloads lie in the slots. */
#ifndef GLEANER_RING_H
#define GLEANER_RING_H

#include "wire.h"

/* One direction as one side sees it. */
struct gf_ring {
	struct gf_desc *entries;
	uint64_t position; /* of the next descriptor to write or to read */
};

/* gf_ring_push publishes d; the caller never has more than GF_RING_ENTRIES unanswered. */
static inline void gf_ring_push(struct gf_ring *r, const struct gf_desc *d) {
	struct gf_desc *e = &r->entries[r->position & (GF_RING_ENTRIES - 1)];

	e->seq = d->seq;
	e->slot = d->slot;
	e->size = d->size;
	e->cap = d->cap;
	e->status = d->status;
	e->timeout = d->timeout;
	atomic_store(&e->stamp, ++r->position); /* sequentially consistent: gf_ring_must_wake reads the peer's flag after it */
}

/* gf_ring_ready says whether gf_ring_pop would find something. */
static inline int gf_ring_ready(const struct gf_ring *r) {
	return atomic_load_explicit(&r->entries[r->position & (GF_RING_ENTRIES - 1)].stamp, memory_order_acquire) == r->position + 1;
}

/* gf_ring_pop copies the next descriptor out, so that the peer cannot change it after it is checked; 0 when there is none. */
static inline int gf_ring_pop(struct gf_ring *r, struct gf_desc *d) {
	struct gf_desc *e = &r->entries[r->position & (GF_RING_ENTRIES - 1)];

	if (!gf_ring_ready(r)) return 0;
	d->seq = e->seq;
	d->slot = e->slot;
	d->size = e->size;
	d->cap = e->cap;
	d->status = e->status;
	d->timeout = e->timeout;
	r->position++;
	return 1;
}

/* gf_ring_must_wake is called after a push: it says whether the peer sleeps and takes its flag. */
static inline int gf_ring_must_wake(_Atomic uint32_t *asleep) {
	return atomic_load(asleep) != 0 && atomic_exchange(asleep, 0) != 0;
}

/* gf_ring_sleep raises the own flag; 0 when something has come meanwhile and the caller must not sleep. */
static inline int gf_ring_sleep(_Atomic uint32_t *asleep, const struct gf_ring *r) {
	atomic_store(asleep, 1);
	if (atomic_load(&r->entries[r->position & (GF_RING_ENTRIES - 1)].stamp) != r->position + 1) return 1;
	atomic_store(asleep, 0);
	return 0;
}

#endif
