"""The services as tools see them that read a descriptor set and no proto files."""

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from equabot.broker.v1 import admin_pb2, broker_pb2


def test_a_descriptor_set_of_the_services_is_whole() -> None:
    """C17: ghz's own parser is older than `debug_redact`; `--protoset` takes this. Secrets stay marked in it."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        files.setdefault(file.name, file)

    for module in (broker_pb2, admin_pb2):
        add(module.DESCRIPTOR)
    written = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(written.file.add())

    pool = DescriptorPool()
    for read in FileDescriptorSet.FromString(written.SerializeToString()).file:
        pool.Add(read)
    service = pool.FindServiceByName("equabot.broker.v1.Broker")
    assert service.methods_by_name["AcquireLease"].output_type.name == "Lease"
    assert pool.FindServiceByName("equabot.broker.v1.Admin").methods
    secret = pool.FindMessageTypeByName("equabot.broker.v1.Lease").fields_by_name["secret"]
    assert secret.GetOptions().debug_redact
