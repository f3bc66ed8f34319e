# The worker (C) and the supervisor (Go without cgo) beside each other.
WORKER_SOURCES := $(wildcard executor/worker/*.c) fabric/layout.c fabric/ofi.c fabric/libfabric.c

$(BUILD)/libexec/gleaner/worker: $(WORKER_SOURCES) $(wildcard executor/worker/*.h) $(wildcard fabric/*.h)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ifabric -o $@ $(WORKER_SOURCES) -ldl -lpthread

.PHONY: $(BUILD)/libexec/gleaner/executor
$(BUILD)/libexec/gleaner/executor:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $@ ./cmd/executor

BUILD_TARGETS += $(BUILD)/libexec/gleaner/worker $(BUILD)/libexec/gleaner/executor
