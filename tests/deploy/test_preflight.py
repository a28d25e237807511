"""riva-010-preflight.sh: what does not fit is refused before anything is made, with the reason and the way out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cloud.amis import AMI
from cloud.client import TREE, Cloud

TYPES = TREE / "scripts" / "lib" / "instance-types.tsv"


def _preflight(cloud: Cloud, *words: str, **env: str) -> tuple[int, str]:
    ran = cloud.run("riva-010-preflight.sh", *words, env=env)
    assert not ran.out
    return ran.status, ran.err


def test_what_fits_is_waved_through_with_its_cost(cloud: Cloud) -> None:
    cloud.faults.set(quota=8.0)
    status, said = _preflight(cloud)
    assert status == 0, said
    for words in ("L4, 22888 MiB, compute capability 8.9", "quota: 8 vCPUs", "ami-", "an hour", "a month", "minutes"):
        assert words in said
    assert not cloud.changes()


def test_everything_that_is_wrong_is_said_at_once(cloud: Cloud) -> None:
    cloud.faults.set(quota=0.0)
    status, said = _preflight(
        cloud, "--type", "g4dn.xlarge", "--disk-gb", "20", "--ami", "ami-00000000000000000", "--profile=typo"
    )
    assert status == 2
    end = said[said.index("this cannot work yet") :]
    assert "compute capability 7.5; the recognizers want 8.0" in end
    assert "--type g6.xlarge" in end
    assert "request-service-quota-increase" in end
    assert "--quota-code L-DB2E81BA --desired-value 4" in end
    assert "ami-00000000000000000 is not to be had" in end
    assert "a disk of 20 GB is too small" in end
    assert "there is no profile 'typo'" in end
    assert "There are: rnnt, ctc" in end
    assert not cloud.changes()


def test_what_runs_already_takes_its_part_of_the_quota(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    for kind, spot in (("g5.2xlarge", {}), ("p4d.24xlarge", {}), ("g6.xlarge", {"MarketType": "spot"})):
        more = {"InstanceMarketOptions": spot} if spot else {}
        ec2.run_instances(ImageId=AMI, InstanceType=kind, MinCount=1, MaxCount=1, **more)
    cloud.faults.set(quota=8.0)
    status, said = _preflight(cloud)
    assert (status, "8 of them run already; g6.xlarge has 4" in said, "--desired-value 12" in said) == (2, True, True)
    status, said = _preflight(cloud, "--spot")
    assert (status, "8 vCPUs (spot), 4 of them run already" in said) == (0, True), said
    cloud.faults.set(quota="default")
    status, said = _preflight(cloud, "--type", "p5.4xlarge", "--spot")
    assert (status, "may run 0 vCPUs" in said, "--quota-code L-C4BD4855" in said) == (2, True, True), said
    cloud.reset()


def test_a_gpu_that_does_not_fit_can_be_insisted_on(cloud: Cloud) -> None:
    cloud.faults.set(quota=None)
    status, said = _preflight(cloud, "--type", "g4dn.xlarge", "--allow-unsupported-gpu", "--spot")
    assert status == 0, said
    assert "does not fit" in said
    assert "spot now" in said
    assert "cannot be read with these credentials" in said  # the quota: a warning, no more


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("g6f.xlarge", "2861 MiB of memory"),
        ("g5g.xlarge", "arm64"),
        ("t3.micro", "it has no GPU"),
        ("g9.nonsense", "is not an instance type that AWS knows"),
    ],
)
def test_types_that_do_not_fit(cloud: Cloud, kind: str, reason: str) -> None:
    status, said = _preflight(cloud, "--type", kind)
    assert (status, reason in said) == (2, True), said


def test_a_type_that_the_table_lacks_is_judged_by_what_aws_says(cloud: Cloud) -> None:
    status, said = _preflight(cloud, "--type", "g7e.2xlarge")
    assert status == 0, said
    assert "98304 MiB is not in the table" in said
    assert "not in the price table" in said


def test_nobody_logged_in(cloud: Cloud) -> None:
    status, said = _preflight(cloud, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_EC2_METADATA_DISABLED="true")
    assert (status, "AWS does not know who you are" in said) == (2, True), said


def test_no_region(cloud: Cloud) -> None:
    status, said = _preflight(cloud, AWS_DEFAULT_REGION="", AWS_REGION="")
    assert (status, "no region is set" in said) == (2, True), said


def test_a_program_that_is_missing(cloud: Cloud, tmp_path: Path) -> None:
    for name in ("bash", "dirname", "mktemp", "rm", "cat", "env"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    status, said = _preflight(cloud, PATH=str(tmp_path))
    assert (status, "'aws' is not installed" in said) == (2, True), said


def test_a_tar_that_cannot_make_the_release(cloud: Cloud) -> None:
    tar = cloud.bin / "tar"
    tar.write_text("#!/bin/sh\necho 'bsdtar 3.5.3 - libarchive 3.7.4'\n")
    tar.chmod(0o755)
    status, said = _preflight(cloud)
    tar.unlink()
    assert (status, "'tar' is not GNU tar" in said, "brew install gnu-tar" in said) == (2, True, True), said


def test_the_table_says_what_aws_says(cloud: Cloud) -> None:
    with TYPES.open() as lines:
        rows = {row["type"]: row for row in csv.DictReader(lines, delimiter="\t")}
    said = cloud.client("ec2").describe_instance_types(InstanceTypes=list(rows))["InstanceTypes"]
    assert {each["InstanceType"] for each in said} == set(rows)
    for each in said:
        row, gpu = rows[each["InstanceType"]], each["GpuInfo"]["Gpus"][0]
        assert (row["gpu"], int(row["gpu_mib"])) == (gpu["Name"], gpu["MemoryInfo"]["SizeInMiB"])
        assert int(row["vcpu"]) == each["VCpuInfo"]["DefaultVCpus"]
        assert int(row["ram_gib"]) == each["MemoryInfo"]["SizeInMiB"] // 1024
        fits = float(row["capability"]) >= 8.0 and int(row["gpu_mib"]) >= 16_000
        assert fits != row["verdict"].startswith("refused")
        assert float(row["usd_per_hour"]) > 0
