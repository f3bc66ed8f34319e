/* libfabric's entry points, found at run time. Everything else in its headers is inline. */
#ifndef GLEANER_LIBFABRIC_H
#define GLEANER_LIBFABRIC_H

#include <rdma/fabric.h>

struct gf_libfabric {
	int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags, const struct fi_info *hints, struct fi_info **info);
	void (*freeinfo)(struct fi_info *info);
	struct fi_info *(*dupinfo)(const struct fi_info *info);
	int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
	const char *(*strerror)(int errnum);
};

/* gf_libfabric_load loads the library once; NULL with a text in why when it is absent. */
const struct gf_libfabric *gf_libfabric_load(char *why, size_t why_bytes);

#endif
