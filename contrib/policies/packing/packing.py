#!/usr/bin/python3
"""An example of a site's own policy in Python: fill one node before the next is touched, so that most nodes stay empty and may
sleep. It lends only what Slurm has allocated to nobody.

Debian: apt install python3-grpcio python3-protobuf protobuf-compiler, and beside this file
    protoc -I api --python_out=/etc/gleaner/policies.d api/policies.proto
Try it with: gleaner policy test /etc/gleaner/policies.d/packing.py
"""
import os
import signal
import sys
from concurrent import futures

import grpc

import policies_pb2 as pb

VERSION = 1  # of the contract
AGAINST = {"drain", "maint", "reserved", "planned", "powering_down", "powered_down", "powering_up", "reboot_requested", "reboot_issued",
           "not_responding", "fail", "down"}


def left(node, what):
    """What neither jobs nor leases hold; memory that leases borrowed from jobs' allocations is counted there already."""
    leased = max(0, getattr(node.leased, what) - getattr(node.borrowed, what))
    return max(0, min(getattr(node.total, what) - getattr(node.slurm, what) - leased, getattr(node.free, what)))


def harvest(question, _context):
    answer = pb.HarvestResponse()
    for node in question.nodes:
        offer = answer.offers.add(node=node.name, executors=len(node.executors))
        reasons = sorted(AGAINST.intersection(node.flags))
        if reasons:
            offer.why = "node is " + reasons[0]
        elif left(node, "cores") == 0 or left(node, "memory") == 0:
            offer.why = "nothing left over"
        else:
            offer.resources.cores = left(node, "cores")
            offer.resources.memory = left(node, "memory")
            offer.resources.gpus = left(node, "gpus")
    return answer


def holds(offer, each):
    """How many executors of this size an offer holds."""
    counts = [have // need for have, need in ((offer.resources.cores, each.cores), (offer.resources.memory, each.memory),
                                              (offer.resources.gpus, each.gpus)) if need > 0]
    return max(0, min(counts, default=0))


def place(question, _context):
    offers = [o for o in question.offers if question.function not in o.against]
    offers.sort(key=lambda o: (o.node in question.avoid, -o.executors, o.resources.cores, o.node))
    picks = []
    for offer in offers:
        picks += [offer.node] * min(holds(offer, question.each), question.executors - len(picks))
    return pb.PlaceResponse(nodes=picks)


def evict(question, _context):
    youngest = sorted(question.executors, key=lambda e: (-e.started, e.id))
    return pb.EvictResponse(ids=[e.id for e in youngest])


def main():
    if os.environ.get("GLEANER_POLICY_PLUGIN") != "harvest-place-evict":
        sys.exit("This is a policy of Gleaner's broker; name it in broker.toml, or try it with: gleaner policy test " + sys.argv[0])
    methods = {"Harvest": (harvest, pb.HarvestRequest), "Place": (place, pb.PlaceRequest), "Evict": (evict, pb.EvictRequest)}
    handlers = {name: grpc.unary_unary_rpc_method_handler(answer, request_deserializer=question.FromString,
                                                          response_serializer=lambda message: message.SerializeToString())
                for name, (answer, question) in methods.items()}
    size = 64 << 20
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2),
                         options=[("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gleaner.policy.v1.Policy", handlers),))
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR")
    if folder:
        address = os.path.join(folder, "packing.sock")
        server.add_insecure_port("unix:" + address)
        network = "unix"
    else:
        address, network = "127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0"), "tcp"
    server.start()
    print("1|%d|%s|%s|grpc" % (VERSION, network, address), flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
