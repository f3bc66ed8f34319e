#define _GNU_SOURCE
#include "force.h"

#include "ask.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MAX_TREES = 32,
	MAX_DEPTH = 16, /* executors sit one level deep; whatever made more is not followed for ever */
	FREEZE_MS = 20, /* v1: how long to wait for FROZEN before killing what still runs */
	ROUND_MS = 10,  /* a second round of signals catches what was forked during the first */
};

struct forest {
	int trees[MAX_TREES];
	unsigned count;
};

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *to = s;
	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* The mount point of a mountinfo line of type cgroup or cgroup2, else NULL. It lies in line. */
static char *cgroup_mount(char *line)
{
	char *type = strstr(line, " - ");
	if (type == NULL || strncmp(type + 3, "cgroup", 6) != 0)
		return NULL;
	char *rest, *field = strtok_r(line, " ", &rest);
	for (int i = 0; i < 4 && field != NULL; i++)
		field = strtok_r(NULL, " ", &rest);
	if (field != NULL)
		unescape(field);
	return field;
}

static void add_tree(struct forest *f, const char *mount, const struct gl_settings *s)
{
	char path[4096];
	int n = snprintf(path, sizeof path, "%s/%s/%s", mount, s->cgroup, s->node);
	if (n < 0 || (size_t)n >= sizeof path || f->count == MAX_TREES)
		return;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		f->trees[f->count++] = fd;
}

static bool find_trees(struct forest *f, const struct gl_settings *s, const char *mountinfo)
{
	FILE *in = fopen(mountinfo, "re");
	if (in == NULL)
		return false;
	char *line = NULL;
	size_t size = 0;
	while (getline(&line, &size, in) >= 0) {
		char *mount = cgroup_mount(line);
		if (mount != NULL)
			add_tree(f, mount, s);
	}
	free(line);
	fclose(in);
	return true;
}

static bool write_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

/* Calls visit for each pid in dir's cgroup.procs. A pid of 0 is a process of a foreign pid namespace: kill(0) would hit ourselves. */
static unsigned each_pid(int dir, void (*visit)(pid_t, struct gl_force *), struct gl_force *r)
{
	int fd = openat(dir, "cgroup.procs", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
	if (in == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	unsigned count = 0;
	char line[64];
	while (fgets(line, sizeof line, in) != NULL) {
		long pid = strtol(line, NULL, 10);
		if (pid <= 1 || pid == getpid())
			continue;
		count++;
		if (visit != NULL)
			visit((pid_t)pid, r);
	}
	fclose(in);
	return count;
}

static void kill_pid(pid_t pid, struct gl_force *r)
{
	if (kill(pid, SIGKILL) == 0)
		r->signals++;
}

/* What is done to one cgroup and everything below it. Each returns a count to be summed. */
typedef unsigned action(int dir, struct gl_force *r);

static unsigned kill_one(int dir, struct gl_force *r)
{
	return each_pid(dir, kill_pid, r);
}

static unsigned count_one(int dir, struct gl_force *r)
{
	return each_pid(dir, NULL, r);
}

static unsigned freeze_one(int dir, struct gl_force *r)
{
	(void)r;
	if (write_file(dir, "freezer.state", "FROZEN"))
		return 1;
	return write_file(dir, "cgroup.freeze", "1");
}

static unsigned thaw_one(int dir, struct gl_force *r)
{
	(void)r;
	return write_file(dir, "freezer.state", "THAWED") || write_file(dir, "cgroup.freeze", "0");
}

/* Counts v1 cgroups that are still on their way to FROZEN. */
static unsigned freezing_one(int dir, struct gl_force *r)
{
	(void)r;
	char state[16] = "";
	int fd = openat(dir, "freezer.state", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, state, sizeof state - 1);
	close(fd);
	return n > 0 && strncmp(state, "FREEZING", 8) == 0;
}

static unsigned walk(int dir, int depth, action *act, struct gl_force *r)
{
	unsigned sum = act(dir, r);
	int copy = depth < MAX_DEPTH ? openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *list = copy < 0 ? NULL : fdopendir(copy);
	if (list == NULL) {
		if (copy >= 0)
			close(copy);
		return sum;
	}
	for (struct dirent *e; (e = readdir(list)) != NULL;) {
		if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
			continue;
		int child = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child < 0)
			continue;
		sum += walk(child, depth + 1, act, r);
		close(child);
	}
	closedir(list);
	return sum;
}

static unsigned over(const struct forest *f, action *act, struct gl_force *r)
{
	unsigned sum = 0;
	for (unsigned i = 0; i < f->count; i++)
		sum += walk(f->trees[i], 0, act, r);
	return sum;
}

/* A process is in the same place in every tree, and lists take the kernel time that the dying need: what the first tree with processes says
 * is enough until it has none. */
static unsigned first(const struct forest *f, action *act, struct gl_force *r)
{
	unsigned sum = 0;
	for (unsigned i = 0; i < f->count && sum == 0; i++)
		sum = walk(f->trees[i], 0, act, r);
	return sum;
}

/* Kills a whole tree at once, which nothing forks away from; false on v1 and before Linux 5.14. */
static bool kill_trees(const struct forest *f)
{
	bool any = false;
	for (unsigned i = 0; i < f->count; i++)
		any |= write_file(f->trees[i], "cgroup.kill", "1");
	return any;
}

/* Holds everything still so that nothing forks away, and signals it. */
static void kill_each(const struct forest *f, struct gl_force *r, int64_t deadline)
{
	int64_t frozen = gl_monotonic_ms() + FREEZE_MS;
	if (over(f, freeze_one, r) > 0) {
		while (over(f, freezing_one, r) > 0 && gl_monotonic_ms() < frozen && gl_monotonic_ms() < deadline)
			poll(NULL, 0, 1);
	}
	first(f, kill_one, r);
}

/* Leaves the mark in the trees that have a file; returns whether there is such a tree. A mark that is there is as good as a new one. */
static bool mark(const struct forest *f, const char *file, const char *name)
{
	bool any = false;
	for (unsigned i = 0; i < f->count; i++) {
		if (faccessat(f->trees[i], file, F_OK, 0) == 0) {
			any = true;
			(void)mkdirat(f->trees[i], name, 0755);
		}
	}
	return any;
}

/* The launcher looks in v1's tree of the freezer, or where there is none in v2's. */
static void shut(const struct forest *f, uint32_t job)
{
	char name[32];
	snprintf(name, sizeof name, "shut.%" PRIu32, job);
	if (!mark(f, "freezer.state", name))
		(void)mark(f, "cgroup.controllers", name);
}

bool gl_force(const struct gl_settings *s, uint32_t job, const char *mountinfo, struct gl_force *result)
{
	struct forest f = {.count = 0};
	int64_t start = gl_monotonic_ms(), deadline = start + s->force_ms;
	*result = (struct gl_force){.left = 0};
	bool readable = find_trees(&f, s, mountinfo);
	result->trees = f.count;
	shut(&f, job);
	result->left = first(&f, count_one, result);
	for (int round = 0; result->left > 0 && gl_monotonic_ms() < deadline; round++) {
		if (!kill_trees(&f) || round > 0) /* beside a tree that can be killed at once there may be others, with processes of their own */
			kill_each(&f, result, deadline);
		over(&f, thaw_one, result); /* so that it can die */
		int64_t again = gl_monotonic_ms() + ROUND_MS;
		while ((result->left = first(&f, count_one, result)) > 0 && gl_monotonic_ms() < again)
			poll(NULL, 0, 1);
	}
	for (unsigned i = 0; i < f.count; i++)
		close(f.trees[i]);
	result->ms = (unsigned)(gl_monotonic_ms() - start);
	return readable && result->left == 0;
}

bool gl_force_nothing_left(const struct gl_settings *s, const char *mountinfo)
{
	struct forest f = {.count = 0};
	struct gl_force ignored = {.left = 0};
	if (!find_trees(&f, s, mountinfo))
		return false;
	unsigned left = first(&f, count_one, &ignored);
	for (unsigned i = 0; i < f.count; i++)
		close(f.trees[i]);
	return left == 0;
}
