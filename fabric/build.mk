# Tests of the data path's C under sanitizers.
FABRIC_TESTS := $(BUILD)/test/fabric-fuzz $(BUILD)/test/fabric-frame $(BUILD)/test/fabric-layout $(BUILD)/test/fabric-ring $(BUILD)/test/fabric-ring-tsan
FABRIC_HEADERS := $(wildcard fabric/*.h) fabric/ctest/tap.h
FABRIC_CHECKED := $(CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all

# The frames' parsers: mutations of a corpus in every test run; for long with libFuzzer, where clang has it.
FUZZ_SOURCES := fabric/ctest/frames_fuzz.c fabric/frame.c client/c/shareframe.c
FUZZ_SECONDS ?= 60

$(BUILD)/test/fabric-fuzz: $(FUZZ_SOURCES) fabric/ctest/mutate.c $(FABRIC_HEADERS) client/c/shareframe.h
	@mkdir -p $(@D)
	$(CC) $(FABRIC_CHECKED) -o $@ $(FUZZ_SOURCES) fabric/ctest/mutate.c

.PHONY: fuzz-c
fuzz-c: $(BUILD)/test/fabric-fuzz ## the C parsers under libFuzzer, or under mutations without clang: FUZZ_SECONDS=60
	@mkdir -p $(BUILD)/fuzz-corpus
	@if clang $(CFLAGS) -Wno-unknown-warning-option -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-o $(BUILD)/test/fabric-libfuzzer $(FUZZ_SOURCES) 2>$(BUILD)/fuzz.log; then \
		$(BUILD)/test/fabric-libfuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -print_final_stats=1 \
			-artifact_prefix=$(BUILD)/fuzz- $(BUILD)/fuzz-corpus fabric/ctest/corpus; \
	else echo "without libFuzzer ($$(head -n 1 $(BUILD)/fuzz.log))"; $(BUILD)/test/fabric-fuzz fabric/ctest/corpus $(FUZZ_SECONDS); fi

$(BUILD)/test/fabric-frame: fabric/ctest/frame_test.c fabric/frame.c $(FABRIC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FABRIC_CHECKED) -o $@ fabric/ctest/frame_test.c fabric/frame.c

$(BUILD)/test/fabric-layout: fabric/ctest/layout_test.c fabric/layout.c $(FABRIC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FABRIC_CHECKED) -o $@ fabric/ctest/layout_test.c fabric/layout.c

$(BUILD)/test/fabric-ring: fabric/ctest/ring_test.c $(FABRIC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FABRIC_CHECKED) -o $@ fabric/ctest/ring_test.c -lpthread

$(BUILD)/test/fabric-ring-tsan: fabric/ctest/ring_test.c $(FABRIC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fsanitize=thread -o $@ fabric/ctest/ring_test.c -lpthread

# Without sanitizers: libfabric's providers do not bear them.
$(BUILD)/test/fabric-revoke: fabric/ctest/revoke_test.c fabric/ofi.c fabric/libfabric.c $(FABRIC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ifabric -o $@ fabric/ctest/revoke_test.c fabric/libfabric.c -ldl -lpthread

C_TESTS += $(FABRIC_TESTS) $(BUILD)/test/fabric-revoke
