#include "frame.h"

#include <string.h>

static const uint8_t magic[4] = {'G', 'L', 'G', '1'};

static void put(uint8_t *at, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;
	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

struct gl_text gl_text(const char *s)
{
	return (struct gl_text){s, s ? strlen(s) : 0};
}

static uint8_t *append(uint8_t *at, struct gl_text t)
{
	if (t.len > 0)
		memcpy(at, t.at, t.len);
	return at + t.len;
}

size_t gl_frame_encode(const struct gl_frame *f, uint8_t *buf, size_t cap)
{
	if (f->cores.len > GL_FRAME_MAX || f->gpus.len > GL_FRAME_MAX || f->node.len > GL_FRAME_MAX)
		return 0;
	size_t size = GL_FRAME_HEADER + f->cores.len + f->gpus.len + f->node.len;
	if (size > cap || size > GL_FRAME_MAX)
		return 0;
	memcpy(buf, magic, sizeof magic);
	put(buf + 4, f->kind, 2);
	put(buf + 6, f->flags, 2);
	put(buf + 8, size, 4);
	put(buf + 12, f->job, 4);
	put(buf + 16, f->step, 4);
	put(buf + 20, f->uid, 4);
	put(buf + 24, f->mib, 8);
	put(buf + 32, f->nanos, 8);
	put(buf + 40, f->evicted, 4);
	put(buf + 44, f->cores.len, 2);
	put(buf + 46, f->gpus.len, 2);
	put(buf + 48, f->node.len, 2);
	put(buf + 50, 0, 2);
	append(append(append(buf + GL_FRAME_HEADER, f->cores), f->gpus), f->node);
	return size;
}

ssize_t gl_frame_decode(const uint8_t *buf, size_t len, struct gl_frame *f)
{
	if (memcmp(buf, magic, len < sizeof magic ? len : sizeof magic) != 0)
		return -1;
	if (len < GL_FRAME_HEADER)
		return 0;
	size_t size = get(buf + 8, 4), cores = get(buf + 44, 2), gpus = get(buf + 46, 2), node = get(buf + 48, 2);
	if (size > GL_FRAME_MAX || size != GL_FRAME_HEADER + cores + gpus + node)
		return -1;
	if (len < size)
		return 0;
	const char *lists = (const char *)buf + GL_FRAME_HEADER;
	*f = (struct gl_frame){
		.kind = (uint16_t)get(buf + 4, 2),
		.flags = (uint16_t)get(buf + 6, 2),
		.job = (uint32_t)get(buf + 12, 4),
		.step = (uint32_t)get(buf + 16, 4),
		.uid = (uint32_t)get(buf + 20, 4),
		.mib = get(buf + 24, 8),
		.nanos = get(buf + 32, 8),
		.evicted = (uint32_t)get(buf + 40, 4),
		.cores = {lists, cores},
		.gpus = {lists + cores, gpus},
		.node = {lists + cores + gpus, node},
	};
	return (ssize_t)size;
}
