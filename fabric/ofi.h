/* The ofi carrier: one libfabric RDM endpoint with messages as doorbells and RMA writes for bulk. libfabric is loaded at run
 * time. Not thread-safe: callers hold a lock of their own. */
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
};

/* Memory that peers may write into. base is what a peer adds to an offset to address it. */
struct gf_ofi_memory {
	struct fid_mr *mr;
	uint8_t *start;
	void *descriptor;
	uint64_t key;
	uint64_t base;
};

/* One received message; payload and index are valid until gf_ofi_done. */
struct gf_ofi_received {
	struct gf_message message;
	const uint8_t *payload;
	uint32_t payload_bytes;
	uint32_t index;
};

/* Failures are -1 with a text in why. */
int gf_ofi_open(struct gf_ofi **out, const struct gf_ofi_options *options, char *why, size_t why_bytes);
void gf_ofi_close(struct gf_ofi *o);
const char *gf_ofi_provider(const struct gf_ofi *o);
int gf_ofi_name(struct gf_ofi *o, uint8_t *address, uint32_t *bytes, char *why, size_t why_bytes);
int gf_ofi_peer(struct gf_ofi *o, const uint8_t *address, uint64_t *peer);
void gf_ofi_forget(struct gf_ofi *o, uint64_t peer);
int gf_ofi_register(struct gf_ofi *o, struct gf_ofi_memory *m, void *start, size_t bytes, char *why, size_t why_bytes);
void gf_ofi_unregister(struct gf_ofi_memory *m);

/* gf_ofi_write and gf_ofi_send return 0, 1 to try again after gf_ofi_poll, or -1. A send follows the writes before it. */
int gf_ofi_write(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_memory *from, uint64_t offset, uint64_t bytes, uint64_t to, uint64_t key);
int gf_ofi_send(struct gf_ofi *o, uint64_t peer, const struct gf_message *m, const void *payload, uint32_t payload_bytes);

/* gf_ofi_poll makes progress and returns 1 with a message, 0 without one, -1 when an operation has failed (gf_ofi_error). */
int gf_ofi_poll(struct gf_ofi *o, struct gf_ofi_received *r);
/* gf_ofi_advance makes progress only: what arrives waits for gf_ofi_poll. */
int gf_ofi_advance(struct gf_ofi *o);
/* gf_ofi_waiting says whether gf_ofi_poll has a message at hand. */
int gf_ofi_waiting(const struct gf_ofi *o);
void gf_ofi_done(struct gf_ofi *o, uint32_t index);
const char *gf_ofi_error(const struct gf_ofi *o);

/* gf_ofi_sleep returns a descriptor to wait on, or -1 when something is there already. */
int gf_ofi_sleep(struct gf_ofi *o);

#endif
