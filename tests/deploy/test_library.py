"""What scripts/lib/ promises where no cloud is needed: answers that AWS gives and a stand-in of it does not."""

from __future__ import annotations

import ipaddress
import random
import struct
import subprocess
from pathlib import Path

from cloud.client import TREE


def _bash(text: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a script that has the library; `aws` and `sleep` are functions of its own. `more`: of the environment."""
    script = folder / "script.sh"
    script.write_text(f'. {TREE}/scripts/lib/deploy.sh\n. "$LIB/role.sh"\nparse --region us-east-2 --yes\n{text}')
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **more}
    return subprocess.run(["bash", script], capture_output=True, text=True, env=env, timeout=20, check=False)


def test_an_empty_page_before_the_answer(tmp_path: Path) -> None:
    """As text, --query is asked of every page, and of an empty one it says None."""
    ran = _bash(
        """aws() { printf 'None\\nOnline\\n'; }; ask ssm x; echo
        aws() { printf 'None\\nNone\\n'; }; ask ssm x; echo
        aws() { printf 'None\\t10.0.0.1\\n'; }; ask ec2 x; echo
        aws() { printf 'None\\nOnline\\n'; }; agent_online i-1 && echo yes""",
        tmp_path,
    )
    assert (ran.returncode, ran.stdout) == (0, "Online\n\nNone\t10.0.0.1\nyes\n"), ran.stderr


def test_what_fails_inside_of_a_substitution_ends_the_script(tmp_path: Path) -> None:
    ran = _bash("f() { false; echo on; }\nx=$(f)\necho after", tmp_path)
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr


def test_a_warning_of_the_aws_command_is_no_part_of_the_account(tmp_path: Path) -> None:
    ran = _bash("aws() { echo 'it will be retired' >&2 && echo 123456789012; }\naccount", tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "123456789012"), ran.stderr


def test_a_secret_that_is_still_on_its_way_out(tmp_path: Path) -> None:
    """AWS refuses its name for some seconds after it was destroyed. Other refusals are told at once."""
    ran = _bash(
        """tries=$SCRATCH/tries
        sleep() { :; }
        make() { echo >>"$tries"; [ "$(wc -l <"$tries")" -ge 3 ] || { echo "$1" >&2 && return 254; }; }
        once_gone make '(InvalidRequestException): a secret with this name is already scheduled for deletion.'
        wc -l <"$tries"; rm "$tries"
        once_gone make '(AccessDeniedException)' || wc -l <"$tries" """,
        tmp_path,
    )
    assert (ran.returncode, ran.stdout.split()) == (0, ["3", "1"]), ran.stderr


def test_ec2_has_a_name_of_its_own_in_china(tmp_path: Path) -> None:
    ran = _bash(
        """partition=aws-cn; trust ec2; trust scheduler; partition=aws; trust ec2""",
        tmp_path,
    )
    names = [line.split('"Service":"')[1].split('"')[0] for line in ran.stdout.splitlines()]
    assert names == ["ec2.amazonaws.com.cn", "scheduler.amazonaws.com", "ec2.amazonaws.com"], ran.stderr


def test_the_agents_own_line_is_not_shown(tmp_path: Path) -> None:
    ran = _bash(
        r"""far_instance=i-1 DEPLOY_POLL_S=0
        aws() {
            case $2 in
            send-command) echo c-1 ;;
            *) jq -n --arg said $'x: it fails\nfailed to run commands: exit status 3\n' \
                '{Status: "Failed", ResponseCode: 3, StandardErrorContent: $said}' ;;
            esac
        }
        far status.sh 5 DEPLOYMENT=x || echo "$?" """,
        tmp_path,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "3\n", "x: it fails\n")


def _comma(folder: Path) -> dict[str, str]:
    """The environment of somebody whose numbers read 1,5; the locale is made here, as glibc keeps it in a file."""
    place = folder / "comma" / "LC_NUMERIC"
    place.parent.mkdir()
    # A magic number, how many fields, where each begins: point, thousands, groups; both points wide; the character set.
    fields = b",\0\0\0" + struct.pack("<2I", ord(","), 0) + b"ANSI_X3.4-1968\0"
    place.write_bytes(struct.pack("<8I", 0x20031114, 6, 32, 34, 35, 36, 40, 44) + fields)
    return {"LOCPATH": str(folder), "LC_ALL": "comma"}


def test_numbers_where_people_write_a_comma(tmp_path: Path) -> None:
    env = _comma(tmp_path)
    asked = subprocess.run(["bash", "-c", "printf %.1f 1"], capture_output=True, text=True, env=env, check=True)
    assert asked.stdout == "1,0"  # the locale is one
    ran = _bash('. "$LIB/machine.sh"\ntimes 0.805 2.5; less 0.5 0.7 && printf " %.1f" 1.5', tmp_path, **env)
    assert (ran.returncode, ran.stdout) == (0, "2.01 1.5"), ran.stderr


def test_networks_read_as_aws_writes_them(tmp_path: Path) -> None:
    dice = random.Random(6)
    asked = ["10.1.2.3/8", "203.0.113.7", "255.255.255.255/0", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "::", "::/0"]
    for _ in range(60):
        groups = [dice.choice([0, 0, 0, 1, dice.randrange(1 << 16)]) for _ in range(8)]
        address = ipaddress.IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
        written = dice.choice([address.compressed, address.exploded, address.compressed.upper()])
        asked.append(written + dice.choice(["", f"/{dice.randrange(129)}"]))
    none = ["::::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", ":1::", "1:", "::1/129", "g::", ":::"]
    none += ["1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:::2", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "::/", "::1/a"]
    (tmp_path / "asked").write_text("".join(f"{each}\n" for each in asked + none))
    line = 'while read -r each; do canonical "$each" || printf none; echo; done <"$HOME/asked"'
    ran = _bash(f'. "$LIB/access.sh"\n{line}', tmp_path)
    wanted = [str(ipaddress.ip_network(each, strict=False)) for each in asked] + ["none"] * len(none)
    assert ran.stdout.splitlines() == wanted, ran.stderr
