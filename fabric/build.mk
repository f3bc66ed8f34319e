# C of the data path: objects shared by the worker, and its tests under sanitizers.
FABRIC_SHARED := fabric/layout.c fabric/ofi.c fabric/libfabric.c
FABRIC_HEADERS := $(wildcard fabric/*.h)
