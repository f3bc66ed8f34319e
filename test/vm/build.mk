# Suites that need another machine than this host may be: pure cgroup v2, an RDMA device. They run in a virtual machine, as part of the
# Go tests, and are skipped with the reason where QEMU is missing.
APT_OPTIONAL += qemu-system-x86 busybox-static kmod cpio python3 iproute2
APT_OPTIONAL += rdma-core ibverbs-utils ibverbs-providers perftest libfabric-bin

.PHONY: test-v2 test-verbs
test-v2: ## sandbox suite on cgroup v2, in a virtual machine
	@test/vm/sandbox || [ $$? = 77 ]

test-verbs: ## data-path suite on soft-RoCE, in a virtual machine
	@test/verbs/run || [ $$? = 77 ]
