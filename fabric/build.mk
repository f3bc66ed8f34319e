# Tests of the data path's C under sanitizers.
FABRIC_TESTS := $(BUILD)/test/fabric-frame $(BUILD)/test/fabric-layout $(BUILD)/test/fabric-ring $(BUILD)/test/fabric-ring-tsan
FABRIC_HEADERS := $(wildcard fabric/*.h) fabric/ctest/tap.h
FABRIC_CHECKED := $(CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all

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
