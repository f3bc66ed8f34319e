/* The ofi carrier: one libfabric RDM endpoint with messages or RMA writes with remote data as doorbells, and RMA writes for bulk.
 * libfabric is loaded at run time. Not thread-safe: callers hold a lock of their own. */
#ifndef GLEANER_OFI_H
#define GLEANER_OFI_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct gf_ofi;
struct fid_mr;

struct gf_ofi_options {
	const char *provider; /* "" means tcp;ofi_rxm */
	const char *host;     /* local address, "" lets the provider choose */
	uint32_t depth;       /* receive buffers */
	uint32_t bells;       /* doorbells that may wait for gf_ofi_poll; more are lost */
};

/* Memory that peers may write into. base is what a peer adds to an offset to address it. */
struct gf_ofi_memory {
	struct fid_mr *mr;
	uint8_t *start;
	void *descriptor;
	uint64_t key;
	uint64_t base;
};

/* One message, whose payload and index are valid until gf_ofi_done, or one doorbell. */
struct gf_ofi_received {
	int is_bell;
	uint32_t bell; /* of a doorbell, and all there is to it */
	struct gf_message message;
	uint8_t *payload; /* at a multiple of 64 */
	uint32_t payload_bytes;
	uint32_t index;
};

/* Failures are -1 with a text in why. */
int gf_ofi_open(struct gf_ofi **out, const struct gf_ofi_options *options, char *why, size_t why_bytes);
/* gf_ofi_shut ends every operation under way, so that their memory can be unregistered; gf_ofi_close does what is left. */
void gf_ofi_shut(struct gf_ofi *o);
void gf_ofi_close(struct gf_ofi *o);
const char *gf_ofi_provider(const struct gf_ofi *o);
int gf_ofi_name(struct gf_ofi *o, uint8_t *address, uint32_t *bytes, char *why, size_t why_bytes);
int gf_ofi_peer(struct gf_ofi *o, const uint8_t *address, uint64_t *peer);
void gf_ofi_forget(struct gf_ofi *o, uint64_t peer);
int gf_ofi_register(struct gf_ofi *o, struct gf_ofi_memory *m, void *start, size_t bytes, char *why, size_t why_bytes);
void gf_ofi_unregister(struct gf_ofi_memory *m);

/* gf_ofi_rings says whether peers may be tried to be written to with doorbells. */
int gf_ofi_rings(const struct gf_ofi *o);

/* What is to be written: bytes from an offset of own memory to an address of the peer's. */
struct gf_ofi_piece {
	const struct gf_ofi_memory *from;
	uint64_t offset, bytes, to, key;
};

/* gf_ofi_write, gf_ofi_ring (the same with a doorbell) and gf_ofi_send return 0, 1 to try again after gf_ofi_poll, or -1. A send
 * follows the writes before it. What they send stays as it is until the peer answers. */
int gf_ofi_write(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_piece *p);
int gf_ofi_ring(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_piece *p, uint32_t bell);
/* gf_ofi_send sends a struct gf_message and at most GF_INLINE_BYTES behind it. */
int gf_ofi_send(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_memory *from, uint64_t offset, uint64_t bytes);

/* gf_ofi_poll makes progress and returns 1 with a message or a doorbell, 0 without one, -1 when an operation has failed (gf_ofi_error). */
int gf_ofi_poll(struct gf_ofi *o, struct gf_ofi_received *r);
/* gf_ofi_advance makes progress only: what arrives waits for gf_ofi_poll. */
int gf_ofi_advance(struct gf_ofi *o);
/* gf_ofi_waiting says whether gf_ofi_poll has something at hand. */
int gf_ofi_waiting(const struct gf_ofi *o);
/* gf_ofi_done gives a message's buffer back; of a doorbell there is nothing to give back. */
void gf_ofi_done(struct gf_ofi *o, const struct gf_ofi_received *r);
const char *gf_ofi_error(const struct gf_ofi *o);

/* gf_ofi_sleep returns a descriptor to wait on, or -1 when something is there already. */
int gf_ofi_sleep(struct gf_ofi *o);

#endif
