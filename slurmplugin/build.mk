# What Slurm loads or runs: the gate, the hook, and their tests. Included by the top Makefile, or alone: make -f slurmplugin/build.mk
BUILD ?= build
CC ?= cc
GLEANER_PLUGIN_CFLAGS ?= -std=c11 -O2 -g -Wall -Wextra -Werror
SLURM_CFLAGS ?=

# Slurm accepts the plugin only when it was built for the same major release: a new one builds it anew.
SLURM_HEADERS := $(wildcard /usr/include/slurm/spank.h /usr/include/slurm/slurm_version.h)

SLURMPLUGIN_SHARED := slurmplugin/frame.c slurmplugin/settings.c slurmplugin/ask.c slurmplugin/force.c slurmplugin/gate.c
SLURMPLUGIN_HEADERS := $(wildcard slurmplugin/*.h slurmplugin/spank/*.h slurmplugin/ctest/*.h)
SLURMPLUGIN_SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

SPANK_GLEANER := $(BUILD)/lib/slurm/spank_gleaner.so
GLEANER_HOOK := $(BUILD)/libexec/gleaner/hook
SLURMPLUGIN_TESTS := $(addprefix $(BUILD)/ctest/,frame_test settings_test options_test ask_test force_test)

BUILD_TARGETS += $(SPANK_GLEANER) $(GLEANER_HOOK)
C_TESTS += $(SLURMPLUGIN_TESTS)

$(SPANK_GLEANER): slurmplugin/spank/gleaner.c slurmplugin/spank/options.c slurmplugin/spank/remote.c slurmplugin/options.c slurmplugin/spank/exports.map $(SLURMPLUGIN_SHARED) $(SLURMPLUGIN_HEADERS) $(SLURM_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(GLEANER_PLUGIN_CFLAGS) $(SLURM_CFLAGS) -fPIC -shared -Wl,--version-script=slurmplugin/spank/exports.map -Wl,-z,relro \
		-o $@ $(filter %.c,$^)

$(GLEANER_HOOK): slurmplugin/hook/hook.c $(SLURMPLUGIN_SHARED) $(SLURMPLUGIN_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(GLEANER_PLUGIN_CFLAGS) -static -o $@ $(filter %.c,$^)

$(SLURMPLUGIN_TESTS): $(BUILD)/ctest/%: slurmplugin/ctest/%.c slurmplugin/options.c $(SLURMPLUGIN_SHARED) $(SLURMPLUGIN_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(GLEANER_PLUGIN_CFLAGS) $(SLURMPLUGIN_SANITIZE) -pthread -o $@ $(filter %.c,$^)
