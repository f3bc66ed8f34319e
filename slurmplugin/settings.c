#define _GNU_SOURCE
#include "settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

void gl_settings_defaults(struct gl_settings *s)
{
	*s = (struct gl_settings){
		.socket = "/run/gleaner/agent.sock",
		.cgroup = "gleaner",
		.ack_ms = 50,
		.done_ms = 1000,
		.force_ms = 2000,
	};
}

static bool milliseconds(unsigned *into, const char *value, unsigned most)
{
	if (*value < '0' || *value > '9')
		return false;
	char *end;
	errno = 0;
	unsigned long n = strtoul(value, &end, 10);
	if (errno != 0 || *end != '\0' || n < 1 || n > most)
		return false;
	*into = (unsigned)n;
	return true;
}

static bool copy(char *into, size_t size, const char *value)
{
	size_t len = strlen(value);
	if (len == 0 || len >= size)
		return false;
	memcpy(into, value, len + 1);
	return true;
}

/* A relative path without empty, "." or ".." parts: it can only lead downwards. */
static bool descends(const char *path)
{
	for (;;) {
		size_t len = strcspn(path, "/");
		if (len == 0 || (len == 1 && path[0] == '.') || (len == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (path[len] == '\0')
			return true;
		path += len + 1;
	}
}

static bool is_mode(struct gl_settings *s, const char *value)
{
	if (strcmp(value, "warn") != 0 && strcmp(value, "blunt") != 0)
		return false;
	s->blunt = value[0] == 'b';
	return true;
}

bool gl_settings_word(struct gl_settings *s, const char *word, char *why, size_t why_size)
{
	const char *value = strchr(word, '=');
	size_t key = value ? (size_t)(value - word) : 0;
	bool good = false;
#define KEY(name) (key == sizeof name - 1 && memcmp(word, name, key) == 0)
	if (key == 0) {
		snprintf(why, why_size, "\"%s\" is not key=value", word);
		return false;
	}
	value++;
	if (KEY("socket"))
		good = value[0] == '/' && copy(s->socket, sizeof s->socket, value);
	else if (KEY("cgroup"))
		good = descends(value) && copy(s->cgroup, sizeof s->cgroup, value);
	else if (KEY("ack"))
		good = milliseconds(&s->ack_ms, value, 1000);
	else if (KEY("deadline"))
		good = milliseconds(&s->done_ms, value, 60000);
	else if (KEY("force"))
		good = milliseconds(&s->force_ms, value, 60000);
	else if (KEY("mode"))
		good = is_mode(s, value);
	else {
		snprintf(why, why_size, "unknown key in \"%s\"; known are socket, cgroup, ack, deadline, force, mode", word);
		return false;
	}
#undef KEY
	if (!good)
		snprintf(why, why_size, "value out of range in \"%s\"; the default stays", word);
	return good;
}

static bool is_node_name(const char *s)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	size_t len = strlen(s);
	return len > 0 && len < 256 && s[0] != '.' && s[0] != '-' && strspn(s, allowed) == len;
}

/* Replaces %n and %% in place; false when the result is longer than size allows. */
static bool expand(char *text, size_t size, const char *node)
{
	char out[512];
	size_t n = 0;
	for (const char *c = text; *c != '\0'; c++) {
		const char *piece = c;
		size_t len = 1;
		if (c[0] == '%' && c[1] == 'n') {
			piece = node;
			len = strlen(node);
			c++;
		} else if (c[0] == '%' && c[1] == '%') {
			c++;
		}
		if (n + len >= size || n + len >= sizeof out)
			return false;
		memcpy(out + n, piece, len);
		n += len;
	}
	memcpy(text, out, n);
	text[n] = '\0';
	return true;
}

bool gl_settings_node(struct gl_settings *s, const char *slurmd_nodename, char *why, size_t why_size)
{
	char host[sizeof s->node] = "";
	const char *node = slurmd_nodename;
	if (node == NULL || !is_node_name(node)) {
		gethostname(host, sizeof host - 1);
		host[strcspn(host, ".")] = '\0';
		node = host;
	}
	if (!is_node_name(node)) {
		snprintf(why, why_size, "no name for this node: neither SLURMD_NODENAME nor the host name is one");
		return false;
	}
	memcpy(s->node, node, strlen(node) + 1);
	if (!expand(s->socket, sizeof s->socket, node) || !expand(s->cgroup, sizeof s->cgroup, node)) {
		snprintf(why, why_size, "socket or cgroup too long with the node's name in it");
		return false;
	}
	if (strlen(s->socket) >= sizeof((struct sockaddr_un *)0)->sun_path) {
		snprintf(why, why_size, "socket path too long: %s", s->socket);
		return false;
	}
	return true;
}
