#define _GNU_SOURCE
#include "ofi.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "libfabric.h"

enum { BUFFER_BYTES = (int)sizeof(struct gf_message) + GF_INLINE_BYTES, TX_DEPTH = 2 * GF_MAX_TOTAL, CQ_BATCH = 16, FIRST_REALTIME = 32 };

/* Where a message arrives. */
struct buffer {
	struct fi_context2 context; /* first, so that an op_context points to its buffer */
	uint32_t bytes;             /* received */
	_Alignas(64) uint8_t data[BUFFER_BYTES];
};

enum { ARRIVED_MESSAGE, ARRIVED_BELL };

/* What has arrived: a doorbell with its data, or a message with its buffer's index. */
struct arrival {
	uint32_t kind, value;
};

struct gf_ofi {
	const struct gf_libfabric *lib;
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_ep *ep;
	struct gf_ofi_memory own; /* the buffers below, where the provider wants them registered */
	struct buffer *buffers;   /* depth of them */
	uint32_t depth;
	struct fi_context2 tx[TX_DEPTH]; /* contexts of what is being sent */
	uint32_t free_tx[TX_DEPTH], free_count;
	struct arrival *arrived; /* queue of what is not yet handed out, of arrived_cap places */
	uint32_t arrived_cap, arrived_head, arrived_count, bells, bell_count;
	int wait_fd;
	char error[160];
};

static int fail(const struct gf_libfabric *lib, char *why, size_t n, const char *what, long rc) {
	snprintf(why, n, "%s: %s", what, lib->strerror((int)(rc < 0 ? -rc : rc)));
	return -1;
}

static struct fi_info *hints_for(const struct gf_libfabric *lib, const char *provider, uint32_t depth) {
	struct fi_info *h = lib->dupinfo(NULL);

	if (h == NULL) return NULL;
	h->caps = FI_MSG | FI_RMA;
	h->mode = FI_CONTEXT | FI_CONTEXT2;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->domain_attr->resource_mgmt = FI_RM_ENABLED;
	h->tx_attr->size = TX_DEPTH; /* providers allocate for what is asked, and for much more otherwise */
	h->rx_attr->size = depth;
	h->tx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	h->rx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	h->fabric_attr->prov_name = strdup(provider);
	return h;
}

/* discover fills o->info with the first endpoint that fits. */
static int discover(struct gf_ofi *o, const struct gf_ofi_options *options, char *why, size_t n) {
	const char *provider = options->provider[0] != 0 ? options->provider : "tcp;ofi_rxm";
	const char *host = options->host[0] != 0 ? options->host : NULL;
	struct fi_info *hints;
	char what[128];
	int rc;

	if (strncmp(provider, "shm", 3) == 0) {
		snprintf(why, n, "provider shm cannot revoke memory: choose another, such as tcp;ofi_rxm");
		return -1;
	}
	hints = hints_for(o->lib, provider, o->depth);
	if (hints == NULL || hints->fabric_attr->prov_name == NULL) {
		snprintf(why, n, "out of memory");
		return -1;
	}
	rc = o->lib->getinfo(FI_VERSION(1, 9), host, NULL, host != NULL ? FI_SOURCE : 0, hints, &o->info);
	o->lib->freeinfo(hints);
	snprintf(what, sizeof what, "find a libfabric endpoint of provider %s on %s", provider, host != NULL ? host : "any address");
	return rc == 0 ? 0 : fail(o->lib, why, n, what, rc);
}

static int open_endpoint(struct gf_ofi *o, char *why, size_t n) {
	struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_DATA, .wait_obj = FI_WAIT_FD, .size = 4 * (TX_DEPTH + o->depth)};
	struct fi_av_attr av = {.type = FI_AV_TABLE, .count = GF_MAX_CONNECTIONS};
	int rc;

	if ((rc = o->lib->fabric(o->info->fabric_attr, &o->fabric, NULL)) != 0) return fail(o->lib, why, n, "open fabric", rc);
	if ((rc = fi_domain(o->fabric, o->info, &o->domain, NULL)) != 0) return fail(o->lib, why, n, "open fabric domain", rc);
	if ((rc = fi_cq_open(o->domain, &cq, &o->cq, NULL)) != 0) return fail(o->lib, why, n, "open completion queue", rc);
	if ((rc = fi_av_open(o->domain, &av, &o->av, NULL)) != 0) return fail(o->lib, why, n, "open address vector", rc);
	if ((rc = fi_endpoint(o->domain, o->info, &o->ep, NULL)) != 0) return fail(o->lib, why, n, "open endpoint", rc);
	if ((rc = fi_ep_bind(o->ep, &o->cq->fid, FI_TRANSMIT | FI_RECV)) != 0) return fail(o->lib, why, n, "bind completion queue", rc);
	if ((rc = fi_ep_bind(o->ep, &o->av->fid, 0)) != 0) return fail(o->lib, why, n, "bind address vector", rc);
	if ((rc = fi_enable(o->ep)) != 0) return fail(o->lib, why, n, "enable endpoint", rc);
	if ((rc = fi_control(&o->cq->fid, FI_GETWAIT, &o->wait_fd)) != 0) return fail(o->lib, why, n, "get wait descriptor", rc);
	return 0;
}

static int post_receive(struct gf_ofi *o, struct buffer *b) {
	return (int)fi_recv(o->ep, b->data, BUFFER_BYTES, o->own.descriptor, FI_ADDR_UNSPEC, &b->context);
}

static int post_all(struct gf_ofi *o, char *why, size_t n) {
	size_t bytes = o->depth * sizeof *o->buffers;

	o->buffers = aligned_alloc(_Alignof(struct buffer), bytes);
	o->arrived = calloc(o->arrived_cap, sizeof *o->arrived);
	if (o->buffers == NULL || o->arrived == NULL) {
		snprintf(why, n, "out of memory");
		return -1;
	}
	memset(o->buffers, 0, bytes);
	if ((o->info->domain_attr->mr_mode & FI_MR_LOCAL) != 0 && gf_ofi_register(o, &o->own, o->buffers, bytes, why, n) != 0) return -1;
	for (uint32_t i = 0; i < TX_DEPTH; i++) o->free_tx[o->free_count++] = i;
	for (uint32_t i = 0; i < o->depth; i++) {
		int rc = post_receive(o, &o->buffers[i]);
		if (rc != 0) return fail(o->lib, why, n, "post receive", rc);
	}
	return 0;
}

static int open_all(struct gf_ofi **out, const struct gf_ofi_options *options, char *why, size_t why_bytes) {
	const struct gf_libfabric *lib = gf_libfabric_load(why, why_bytes);
	struct gf_ofi *o;

	*out = NULL;
	if (lib == NULL) return -1;
	o = calloc(1, sizeof *o);
	if (o == NULL) {
		snprintf(why, why_bytes, "out of memory");
		return -1;
	}
	o->lib = lib;
	o->depth = options->depth;
	o->bells = options->bells;
	o->arrived_cap = options->depth + options->bells;
	o->wait_fd = -1;
	if (discover(o, options, why, why_bytes) != 0 || open_endpoint(o, why, why_bytes) != 0 || post_all(o, why, why_bytes) != 0) {
		gf_ofi_close(o);
		return -1;
	}
	*out = o;
	return 0;
}

/* Libraries behind libfabric's providers (PSM) install fault handlers that end the process with status 1; the program's own
 * handlers are put back. */
int gf_ofi_open(struct gf_ofi **out, const struct gf_ofi_options *options, char *why, size_t why_bytes) {
	struct sigaction before[FIRST_REALTIME];
	int rc;

	for (int i = 1; i < FIRST_REALTIME; i++) sigaction(i, NULL, &before[i]);
	rc = open_all(out, options, why, why_bytes);
	for (int i = 1; i < FIRST_REALTIME; i++) {
		if (i != SIGKILL && i != SIGSTOP) sigaction(i, &before[i], NULL);
	}
	return rc;
}

/* drain takes what has arrived and will not be served. ofi_rxm would take it while it closes a connection, and receive again on the
 * endpoint that it has just closed (libfabric 1.17, seen over verbs). A read may take one and report none. */
static void drain(struct gf_ofi *o) {
	struct fi_cq_data_entry e[CQ_BATCH];
	struct fi_cq_err_entry x = {0};

	for (uint32_t i = 0; i < TX_DEPTH + o->depth; i++) {
		if (fi_cq_read(o->cq, e, CQ_BATCH) == -FI_EAVAIL) fi_cq_readerr(o->cq, &x, 0);
	}
}

void gf_ofi_shut(struct gf_ofi *o) {
	if (o->ep != NULL) {
		if (o->wait_fd >= 0) drain(o); /* it is enabled */
		fi_close(&o->ep->fid);
	}
	if (o->av != NULL) fi_close(&o->av->fid);
	if (o->cq != NULL) fi_close(&o->cq->fid);
	o->ep = NULL;
	o->av = NULL;
	o->cq = NULL;
}

void gf_ofi_close(struct gf_ofi *o) {
	if (o == NULL) return;
	gf_ofi_shut(o);
	gf_ofi_unregister(&o->own);
	if (o->domain != NULL) fi_close(&o->domain->fid);
	if (o->fabric != NULL) fi_close(&o->fabric->fid);
	if (o->info != NULL) o->lib->freeinfo(o->info);
	free(o->arrived);
	free(o->buffers);
	free(o);
}

const char *gf_ofi_provider(const struct gf_ofi *o) { return o->info->fabric_attr->prov_name; }

/* Over verbs, ofi_rxm takes such writes and stalls for good after some hundred: the receive credits that they use up are not
 * given back (libfabric 1.17). */
int gf_ofi_rings(const struct gf_ofi *o) {
	return o->info->domain_attr->cq_data_size >= sizeof(uint32_t) && strstr(gf_ofi_provider(o), "verbs") == NULL;
}

const char *gf_ofi_error(const struct gf_ofi *o) { return o->error; }

int gf_ofi_name(struct gf_ofi *o, uint8_t *address, uint32_t *bytes, char *why, size_t why_bytes) {
	size_t n = GF_ADDRESS_BYTES;
	int rc = fi_getname(&o->ep->fid, address, &n);

	if (rc != 0) return fail(o->lib, why, why_bytes, "get endpoint address", rc);
	*bytes = (uint32_t)n;
	return 0;
}

int gf_ofi_peer(struct gf_ofi *o, const uint8_t *address, uint64_t *peer) {
	fi_addr_t p = FI_ADDR_UNSPEC;

	if (fi_av_insert(o->av, address, 1, &p, 0, NULL) != 1) return -1;
	*peer = p;
	return 0;
}

void gf_ofi_forget(struct gf_ofi *o, uint64_t peer) {
	fi_addr_t p = peer;
	fi_av_remove(o->av, &p, 1, 0);
}

/* The key is random where the provider lets us choose: whoever has not been told it cannot guess it. */
int gf_ofi_register(struct gf_ofi *o, struct gf_ofi_memory *m, void *start, size_t bytes, char *why, size_t why_bytes) {
	uint64_t key = 0, access = FI_SEND | FI_RECV | FI_READ | FI_WRITE | FI_REMOTE_WRITE;
	size_t key_bytes = o->info->domain_attr->mr_key_size;
	int rc;

	memset(m, 0, sizeof *m);
	if (m == &o->own) access = FI_SEND | FI_RECV;
	if (key_bytes == 0 || key_bytes > sizeof key) key_bytes = sizeof key;
	if (getrandom(&key, key_bytes, 0) != (ssize_t)key_bytes) {
		snprintf(why, why_bytes, "no random bytes for a memory key");
		return -1;
	}
	rc = fi_mr_reg(o->domain, start, bytes, access, 0, key, 0, &m->mr, NULL);
	if (rc != 0) return fail(o->lib, why, why_bytes, "register memory", rc);
	if ((o->info->domain_attr->mr_mode & FI_MR_ENDPOINT) != 0) {
		rc = fi_mr_bind(m->mr, &o->ep->fid, 0);
		if (rc == 0) rc = fi_mr_enable(m->mr);
		if (rc != 0) return fail(o->lib, why, why_bytes, "enable memory", rc);
	}
	m->start = start;
	m->descriptor = fi_mr_desc(m->mr);
	m->key = fi_mr_key(m->mr);
	m->base = (o->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0 ? (uint64_t)(uintptr_t)start : 0;
	return 0;
}

void gf_ofi_unregister(struct gf_ofi_memory *m) {
	if (m->mr != NULL) fi_close(&m->mr->fid);
	memset(m, 0, sizeof *m);
}

static int later(struct gf_ofi *o, const char *what, ssize_t rc) {
	if (rc == -FI_EAGAIN) return 1;
	return fail(o->lib, o->error, sizeof o->error, what, rc);
}

/* next_tx is the context for the next operation, NULL when all are in use. The operation takes it with free_count--. */
static struct fi_context2 *next_tx(struct gf_ofi *o) { return o->free_count == 0 ? NULL : &o->tx[o->free_tx[o->free_count - 1]]; }

/* posted books the outcome of an operation that completes. */
static int posted(struct gf_ofi *o, const char *what, ssize_t rc) {
	if (rc != 0) return later(o, what, rc);
	o->free_count--;
	return 0;
}

int gf_ofi_write(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_piece *p) {
	struct fi_context2 *tx = next_tx(o);

	if (tx == NULL) return 1;
	return posted(o, "write to peer", fi_write(o->ep, p->from->start + p->offset, p->bytes, p->from->descriptor, peer, p->to, p->key, tx));
}

/* Never injected: ofi_rxm 1.17 follows a null pointer when the peer dies before such a write has gone. */
int gf_ofi_ring(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_piece *p, uint32_t bell) {
	struct fi_context2 *tx = next_tx(o);
	const void *start = p->from->start + p->offset;

	if (tx == NULL) return 1;
	return posted(o, "write to peer", fi_writedata(o->ep, start, p->bytes, p->from->descriptor, bell, peer, p->to, p->key, tx));
}

int gf_ofi_send(struct gf_ofi *o, uint64_t peer, const struct gf_ofi_memory *from, uint64_t offset, uint64_t bytes) {
	struct fi_context2 *tx = next_tx(o);

	if (bytes > BUFFER_BYTES) return -1;
	if (bytes <= o->info->tx_attr->inject_size) {
		ssize_t rc = fi_inject(o->ep, from->start + offset, bytes, peer);
		return rc == 0 ? 0 : later(o, "send to peer", rc);
	}
	if (tx == NULL) return 1;
	return posted(o, "send to peer", fi_send(o->ep, from->start + offset, bytes, from->descriptor, peer, tx));
}

/* arrive always has room for messages, of which there are no more than buffers. */
static void arrive(struct gf_ofi *o, uint32_t kind, uint32_t value) {
	if (kind == ARRIVED_BELL && o->bell_count == o->bells) return;
	o->bell_count += kind == ARRIVED_BELL;
	o->arrived[(o->arrived_head + o->arrived_count++) % o->arrived_cap] = (struct arrival){.kind = kind, .value = value};
}

/* completed takes one completion: a context is free again, what has arrived is queued. */
static void completed(struct gf_ofi *o, const struct fi_cq_data_entry *e, int ok) {
	uintptr_t context = (uintptr_t)e->op_context, tx = (uintptr_t)o->tx;

	if (ok && (e->flags & (FI_REMOTE_CQ_DATA | FI_MSG | FI_RECV)) == FI_REMOTE_CQ_DATA) {
		arrive(o, ARRIVED_BELL, (uint32_t)e->data);
	} else if (context >= tx && context < tx + sizeof o->tx) {
		o->free_tx[o->free_count++] = (uint32_t)((context - tx) / sizeof *o->tx);
	} else if (context != 0) {
		struct buffer *b = e->op_context;
		b->bytes = (uint32_t)e->len;
		if (ok) {
			arrive(o, ARRIVED_MESSAGE, (uint32_t)(b - o->buffers));
		} else {
			post_receive(o, b);
		}
	}
}

static int progress(struct gf_ofi *o) {
	struct fi_cq_data_entry e[CQ_BATCH];
	struct fi_cq_err_entry x = {0};
	ssize_t n = fi_cq_read(o->cq, e, CQ_BATCH);

	for (ssize_t i = 0; i < n; i++) completed(o, &e[i], 1);
	if (n >= 0 || n == -FI_EAGAIN) return 0;
	if (n != -FI_EAVAIL) return fail(o->lib, o->error, sizeof o->error, "read completions", n);
	if (fi_cq_readerr(o->cq, &x, 0) < 1) return 0;
	completed(o, &(struct fi_cq_data_entry){.op_context = x.op_context}, 0);
	return fail(o->lib, o->error, sizeof o->error, "operation on peer", x.err);
}

int gf_ofi_advance(struct gf_ofi *o) { return progress(o); }

int gf_ofi_waiting(const struct gf_ofi *o) { return o->arrived_count > 0; }

int gf_ofi_poll(struct gf_ofi *o, struct gf_ofi_received *r) {
	if (o->arrived_count == 0 && progress(o) != 0) return -1;
	while (o->arrived_count > 0) {
		struct arrival a = o->arrived[o->arrived_head];
		struct buffer *b;
		if (++o->arrived_head == o->arrived_cap) o->arrived_head = 0;
		o->arrived_count--;
		r->is_bell = a.kind == ARRIVED_BELL;
		r->bell = a.value;
		if (r->is_bell) {
			o->bell_count--;
			return 1;
		}
		b = &o->buffers[a.value];
		if (b->bytes < sizeof r->message || b->bytes > BUFFER_BYTES) {
			post_receive(o, b);
			continue;
		}
		memcpy(&r->message, b->data, sizeof r->message);
		r->payload = b->data + sizeof r->message;
		r->payload_bytes = b->bytes - (uint32_t)sizeof r->message;
		r->index = a.value;
		return 1;
	}
	return 0;
}

void gf_ofi_done(struct gf_ofi *o, const struct gf_ofi_received *r) {
	if (r->is_bell) return;
	for (int tries = 0; post_receive(o, &o->buffers[r->index]) == -FI_EAGAIN && tries < 1000; tries++) progress(o);
}

int gf_ofi_sleep(struct gf_ofi *o) {
	struct fid *all[1] = {&o->cq->fid};

	if (o->arrived_count > 0 || fi_trywait(o->fabric, all, 1) != FI_SUCCESS) return -1;
	return o->wait_fd;
}
