"""The image that instances start from: Amazon's for deep learning, as moto wants it told."""

AMI = "ami-0d1a24b2c3d4e5f60"
AMI_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261101"
AMIS = [
    {
        "ami_id": AMI,
        "name": AMI_NAME,
        "description": AMI_NAME,
        "owner_id": "898082745236",
        "owner_alias": "amazon",
        "public": True,
        "architecture": "x86_64",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "state": "available",
        "image_type": "machine",
        "image_location": "amazon/" + AMI_NAME,
        "root_device_name": "/dev/sda1",
        "root_device_type": "ebs",
        "sriov": "simple",
        "platform": None,
    }
]
