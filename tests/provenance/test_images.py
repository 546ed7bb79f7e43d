"""A job only starts in a locked image of containers/, and Python imports only from it."""

import ast
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiment.config.tasks import KINDS
from provenance import image
from provenance.sources import REPOSITORY, WORKFLOW, closure
from workflow_copy import CEILING

CONTAINERS = REPOSITORY / "containers"
SCRIPT = REPOSITORY / "workflow/scripts/plot_figure4.py"
LOCKED = yaml.safe_load((CONTAINERS / "lock.yaml").read_text())
JOB = {"rule": "r", "wildcards": {}, "params": {}, "reproduces": "bits", "imports": [], "code": ""}


@pytest.fixture
def building(monkeypatch):
    """building(name): import a module of containers/."""
    monkeypatch.syspath_prepend(str(CONTAINERS))
    return importlib.import_module


# --- which image ----------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path):
    """built(content, locked=…): make an image with this content, and a lock with that digest."""

    def make(content: bytes, locked: bytes | None = None) -> tuple[Path, Path, Path]:
        file, lock = tmp_path / "ffmerge-cpu-0.sif", tmp_path / "lock.yaml"
        file.write_bytes(content)
        digest = hashlib.sha256(locked).hexdigest() if locked is not None else None
        lock.write_text(yaml.safe_dump({"cpu": {"file": file.name, "sha256": digest}}))
        return file, lock, tmp_path / "cache"

    return make


def test_a_job_starts_in_the_locked_image(built):
    digest = hashlib.sha256(b"image").hexdigest()
    assert image.locked_digest(*built(b"image", locked=b"image")) == digest


def test_another_image_is_refused_with_the_way_out_on_one_line(built):
    with pytest.raises(SystemExit, match=r"^error: .* make images ENV=cpu$") as refusal:
        image.locked_digest(*built(b"another", locked=b"image"))
    said = str(refusal.value)
    assert "\n" not in said
    assert all(hashlib.sha256(content).hexdigest() in said for content in (b"another", b"image"))


def test_an_image_that_nobody_has_built_yet_is_refused(built):
    with pytest.raises(SystemExit, match=r"has no cpu image yet; .* make images ENV=cpu$"):
        image.locked_digest(*built(b"image"))


def test_an_image_that_the_job_cannot_read_is_refused(built):
    file, lock, cache = built(b"image", locked=b"image")
    file.unlink()
    with pytest.raises(SystemExit, match=r"no file that this job can read.* make images"):
        image.locked_digest(file, lock, cache)


def test_a_run_without_its_image_says_how_to_build_it(built):
    file, lock, _ = built(b"image", locked=b"image")  # not in this repository
    with pytest.raises(SystemExit, match=rf"^error: .*{file.name}.* make images ENV=cpu$"):
        image.require("cpu", lock)


def test_outside_apptainer_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("APPTAINER_CONTAINER", raising=False)
    assert image.check(SCRIPT) is None


def test_a_job_in_another_image_ends_before_it_touches_anything(tmp_path):
    another, output = tmp_path / "another.sif", tmp_path / "figure.pdf"
    another.write_bytes(b"another")
    output.write_text("of an earlier run")
    files = {"input": {}, "output": {"pdf": str(output), "record": str(tmp_path / "r.json")}}
    ran = subprocess.run(
        [sys.executable, SCRIPT, json.dumps(JOB), json.dumps(files)],
        env=os.environ | {"APPTAINER_CONTAINER": str(another), "PYTHONPATH": str(WORKFLOW)},
        capture_output=True,
        text=True,
    )
    (image.CACHE / f"{another.name}.json").unlink(missing_ok=True)
    assert ran.returncode == 1
    assert re.fullmatch(r"error: .*make images ENV=cpu\n", ran.stderr), ran.stderr
    assert output.read_text() == "of an earlier run"


# --- its digest, computed once --------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """The files that were hashed and not taken from the cache."""
    files = []
    monkeypatch.setattr(
        image, "sha256_of", lambda file: files.append(file) or _sha256(file.read_bytes())
    )
    return files


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_digest_of_an_image_is_computed_once(built, computed):
    file, _, cache = built(b"image")
    assert [image.cached_digest(file, cache) for _ in range(3)] == [_sha256(b"image")] * 3
    assert computed == [file]


def test_an_image_that_replaces_another_of_its_size_and_time_is_noticed(built, computed):
    file, _, cache = built(b"image")
    image.cached_digest(file, cache)
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"egami")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert image.cached_digest(file, cache) == _sha256(b"egami")


def test_an_image_that_is_changed_in_place_under_its_old_time_is_noticed(built, computed):
    file, _, cache = built(b"image")
    image.cached_digest(file, cache)
    before = file.stat()
    file.write_bytes(b"egami")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.cached_digest(file, cache) == _sha256(b"egami")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"file": {}, "sha256": "0"}'])
def test_a_cache_with_something_else_in_it_is_no_obstacle(built, content):
    file, _, cache = built(b"image")
    cache.mkdir()
    (cache / f"{file.name}.json").write_text(content)
    assert image.cached_digest(file, cache) == _sha256(b"image")


def test_without_a_place_for_the_cache_the_digest_is_computed_each_time(built, computed):
    file, _, cache = built(b"image")
    cache.write_text("a file where the folder should be")
    assert [image.cached_digest(file, cache) for _ in range(2)] == [_sha256(b"image")] * 2
    assert computed == [file, file]


# --- where code comes from ------------------------------------------------------------------------


@pytest.fixture
def in_image(monkeypatch):
    """Pretend that this environment is that of an image."""
    monkeypatch.setattr(image, "IMAGE_FOLDER", Path(sys.prefix))


@pytest.mark.usefixtures("in_image")
def test_the_image_s_packages_and_this_repository_s_ffmerge_are_accepted():
    image.check_origins(SCRIPT)


@pytest.mark.usefixtures("in_image")
@pytest.mark.parametrize("name", ["elsewhere", "json", "nowhere_at_all"])
def test_a_package_from_elsewhere_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match=rf"^error: {name} is from .*, and not from the image's"):
        image.check_origins(SCRIPT, ("torch", name))


def test_a_package_that_is_mounted_over_the_image_s_is_refused(monkeypatch):
    monkeypatch.setattr(image, "IMAGE_FOLDER", Path("/proc"))  # of another device
    with pytest.raises(SystemExit, match=r"^error: torch is from "):
        image.check_origins(SCRIPT)


@pytest.mark.usefixtures("in_image")
def test_modules_of_another_repository_than_the_script_s_are_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: the script .* is not in "):
        image.check_origins(tmp_path / "workflow/scripts/plot_figure4.py")


@pytest.mark.usefixtures("in_image")
def test_a_folder_of_the_host_on_the_search_path_is_refused(tmp_path):
    own = [str(SCRIPT.parent), str(WORKFLOW), sys.prefix, str(tmp_path / "is not there")]
    image.check_search_path(own)
    with pytest.raises(
        SystemExit, match=re.escape(f"error: Python would take modules from {tmp_path}")
    ):
        image.check_search_path([*own, str(tmp_path)])


# --- the lock and the build -----------------------------------------------------------------------


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_an_image_s_name_holds_its_digest(build):
    digest = LOCKED[build]["sha256"]
    name = f"ffmerge-{build}-{digest[:12] if digest else 'not-built'}.sif"
    assert image.container(build) == f"containers/{name}"


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_a_locked_image_is_made_from_what_is_here_now(build, building):
    if not LOCKED[build]["sha256"]:
        pytest.skip(f"nobody has built the {build} image yet")
    now = building("build").made_from(build)
    assert LOCKED[build]["made_from"] == now, f"run make images ENV={build}, commit lock.yaml"


MODULES = {"pillow": "PIL", "pyyaml": "yaml", "markdown-it-py": "markdown_it"}  # of packages


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_every_package_that_a_job_imports_is_in_the_image(build, building):
    lock = (REPOSITORY / "envs" / f"{build}.txt").read_text()
    packages = re.findall(r"^([\w.-]+)==", building("wheels").requirements(lock), re.M)
    modules = {MODULES.get(p, p.replace("-", "_")) for p in packages}
    missing = (
        imported()
        - modules
        - set(sys.stdlib_module_names)
        - {"ffmerge", "provenance", "experiment"}
    )
    assert not missing


def imported() -> set[str]:
    """Return the top-level packages that scripts and their closures import."""
    names = set()
    scripts = (WORKFLOW / "scripts").glob("*.py")
    kinds = [f"experiment.tasks.{kind}" for kind in KINDS]
    for file in {file for script in scripts for file in closure(script, kinds)}:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_tools_that_no_job_imports_stay_outside(build, building):
    """Otherwise a newer linter would give another image, and make every result stale."""
    lock = (REPOSITORY / "envs" / f"{build}.txt").read_text()
    wanted = building("wheels").requirements(lock)
    assert not re.search(r"^(snakemake|pytest|ruff|snakefmt|uv)", wanted, re.M)
    assert ";" not in wanted
    assert all("--hash=sha256:" in line for line in wanted.splitlines())


def test_no_file_says_where_packages_come_from():
    for file in CONTAINERS.rglob("*"):
        if file.is_file() and file.suffix != ".sif" and "__pycache__" not in file.parts:
            assert not re.search(r"https?://[^{]", file.read_text()), file


def test_a_mirror_that_has_moved_on_is_told_with_what_is_missing(building, tmp_path, monkeypatch):
    contents, debian, resolver = map(building, ("contents", "debian", "lock_debian"))
    monkeypatch.setattr(contents, "CACHE", tmp_path / "cache")
    (bash,) = [package for package in debian.locked() if package.name == "bash"]
    newer = bash._replace(version="9.9", sha256="0" * 64)
    monkeypatch.setattr(debian, "locked", lambda: [bash])
    monkeypatch.setattr(resolver, "resolve", lambda address: ("a date", [newer]))
    with pytest.raises(ValueError, match="does not have 1 of 1") as told:
        contents.debian_files(f"file://{tmp_path}")
    assert f"bash {bash.version} → 9.9" in str(told.value)
    assert "make images MIRROR=" in str(told.value)


def test_a_package_with_other_content_is_not_taken(building, tmp_path):
    debian = building("debian")
    package = debian.Package("image", "p", "1", _sha256(b"right"), "pool/p.deb")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/p.deb").write_bytes(b"wrong")
    assert debian.fetch(package, [f"file://{tmp_path}"], tmp_path / "cache") is None
    (tmp_path / "pool/p.deb").write_bytes(b"right")
    assert (
        debian.fetch(package, [f"file://{tmp_path}"], tmp_path / "cache").read_bytes() == b"right"
    )


def test_an_image_of_the_same_files_has_the_same_bits(building, tmp_path):
    """The same files give the same image, whatever their times, modes and order."""
    mksquashfs = shutil.which("mksquashfs")
    if not mksquashfs:
        pytest.skip("no mksquashfs on this machine (Debian's squashfs-tools)")
    sif, images = building("sif"), []
    for n, names in enumerate((["a", "b/c"], ["b/c", "a"])):
        root = tmp_path / f"root{n}"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700 + n)
            (root / name).write_text(name)
            (root / name).chmod(0o600 + 0o44 * n)
            os.utime(root / name, (n, n))
        sif.normalize(root)
        images.append(tmp_path / f"{n}.sif")
        sif.write(root, images[n], [mksquashfs])
    assert images[0].read_bytes() == images[1].read_bytes()


# --- the image itself -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inside():
    """inside(command …, environment={…}, options=[…]): run a command in the CPU image."""
    file = CONTAINERS / LOCKED["cpu"]["file"]
    if not shutil.which("apptainer"):
        pytest.skip("no Apptainer on this machine (tests/cluster/apptainer-install.sh brings one)")
    if not file.exists():
        pytest.skip(f"{file.name} is not built here: make images")

    def run(*command, environment=(), options=()) -> subprocess.CompletedProcess:
        apptainer = ["apptainer", "exec", "--containall", "--home", REPOSITORY]
        outer = os.environ | {"APPTAINER_NO_PRIVS": "1"} | dict(environment)
        if os.geteuid() != 0:
            del outer["APPTAINER_NO_PRIVS"]
        return subprocess.run(
            [*apptainer, *options, file, *command],
            cwd=REPOSITORY, env=outer, capture_output=True, text=True, timeout=CEILING,
        )  # fmt: skip

    return run


@pytest.mark.long
def test_python_in_the_image_sees_its_own_packages_only(inside, tmp_path):
    """Even without a clean environment, and with the caller's packages in the way."""
    callers = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": str(tmp_path),
        "PYTHONSTARTUP": "/dev/null",
        "PYTHONUSERBASE": str(tmp_path),
    }
    program = """if True:
        import importlib.util, json, os, site, sys
        names = ("torch", "transformers", "numpy")
        print(json.dumps({
            "path": sys.path[1:],
            "user": site.ENABLE_USER_SITE,
            "origins": [importlib.util.find_spec(name).origin for name in names],
            "variables": sorted(name for name in os.environ if name.startswith("PYTHON")),
        }))
    """
    ran = inside("python", "-c", program, environment=callers)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert all(entry.startswith("/usr/") for entry in seen["path"])
    assert not seen["user"]
    site = "/usr/local/lib/python3.11/dist-packages/"
    assert all(origin.startswith(site) for origin in seen["origins"])
    assert seen["variables"] == ["PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"]


@pytest.fixture
def check(inside):
    """check(options …): run the check of the image inside it; return what it prints."""
    imports = "from provenance import image; from pathlib import Path"
    program = f"{imports}; print(image.check(Path('{SCRIPT}')))"

    def run(*options: str, path: str = "workflow") -> str:
        # As a script is run, the current folder is not on the search path.
        python = ["env", f"PYTHONPATH={path}", "PYTHONSAFEPATH=1", "python", "-c", program]
        ran = inside(*python, options=["--cleanenv", *options])
        return ran.stdout + ran.stderr

    return run


@pytest.mark.long
def test_a_job_in_the_locked_image_knows_its_path_and_digest(check):
    file = CONTAINERS / LOCKED["cpu"]["file"]
    assert check().strip() == str({"path": str(file), "sha256": LOCKED["cpu"]["sha256"]})


@pytest.mark.long
def test_a_job_in_the_image_refuses_another_lock(check, tmp_path):
    other = {"cpu": {**LOCKED["cpu"], "sha256": "0" * 64}}
    (tmp_path / "lock.yaml").write_text(yaml.safe_dump(other))
    said = check("--bind", f"{tmp_path / 'lock.yaml'}:{CONTAINERS / 'lock.yaml'}")
    assert re.fullmatch(r"error: .* make images ENV=cpu\n", said), said


@pytest.mark.long
def test_a_job_in_the_image_refuses_packages_of_the_host(check, tmp_path):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").touch()
    site = "/usr/local/lib/python3.11/dist-packages/numpy"
    assert "error: numpy is from " in check("--bind", f"{tmp_path}/numpy:{site}")
    said = check("--bind", str(tmp_path), path=f"workflow:{tmp_path}")
    assert f"error: Python would take modules from {tmp_path}" in said
