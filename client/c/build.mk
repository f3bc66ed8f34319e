# libgleaner.so for C, C++ and Fortran, and its tests under sanitizers.
LIBGLEANER         := $(BUILD)/lib/libgleaner.so.1
LIBGLEANER_SOURCES := $(wildcard client/c/*.c) $(wildcard fabric/*.c)
LIBGLEANER_HEADERS := $(wildcard client/c/*.h) $(wildcard fabric/*.h)

APT_OPTIONAL += g++ gfortran

$(LIBGLEANER): $(LIBGLEANER_SOURCES) $(LIBGLEANER_HEADERS) client/c/gleaner.map
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -shared -Wl,-soname,libgleaner.so.1 -Wl,--version-script=client/c/gleaner.map -Wl,-z,defs \
		-o $@ $(LIBGLEANER_SOURCES) -ldl -lpthread

$(BUILD)/lib/libgleaner.so: $(LIBGLEANER)
	@ln -sf $(<F) $@

$(BUILD)/include/gleaner.h $(BUILD)/include/gleaner.f90: $(BUILD)/include/%: client/c/%
	@install -D -m 0644 $< $@

$(BUILD)/lib/pkgconfig/gleaner.pc: client/c/gleaner.pc
	@install -D -m 0644 $< $@

BUILD_TARGETS += $(LIBGLEANER) $(BUILD)/lib/libgleaner.so $(BUILD)/include/gleaner.h $(BUILD)/include/gleaner.f90 $(BUILD)/lib/pkgconfig/gleaner.pc

$(BUILD)/test/gleaner-share: client/c/ctest/share_test.c client/c/shareframe.c client/c/shareframe.h fabric/fields.h fabric/ctest/tap.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -o $@ client/c/ctest/share_test.c client/c/shareframe.c

$(BUILD)/test/gleaner-pool: client/c/ctest/pool_test.c client/c/pool.c $(LIBGLEANER_HEADERS) fabric/ctest/tap.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -o $@ client/c/ctest/pool_test.c client/c/pool.c -lpthread

C_TESTS += $(BUILD)/test/gleaner-share $(BUILD)/test/gleaner-pool

# Run by test/libgleaner, against executors that it starts.
$(BUILD)/test/libgleaner-asan: LIBGLEANER_CHECK := -fsanitize=address,undefined -fno-sanitize-recover=all
$(BUILD)/test/libgleaner-tsan: LIBGLEANER_CHECK := -fsanitize=thread
$(BUILD)/test/libgleaner-plain: LIBGLEANER_CHECK :=
$(BUILD)/test/libgleaner-asan $(BUILD)/test/libgleaner-tsan $(BUILD)/test/libgleaner-plain: client/c/ctest/client_test.c $(LIBGLEANER_SOURCES) $(LIBGLEANER_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LIBGLEANER_CHECK) -o $@ client/c/ctest/client_test.c $(LIBGLEANER_SOURCES) -ldl -lpthread
