"""Data sets of a few tiny images in the layouts in which the real ones are distributed."""

import csv
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import openpyxl
import PIL.Image
import scipy.io


def write_image(path: Path, *, size: tuple[int, int] = (24, 16), **save_options: object) -> Path:
    """Writes noise that depends on the file's name, so that images can be told apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    pixels = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, **save_options)
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_xlsx(path: Path, sheets: dict[str, Iterable[Sequence[object]]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, rows in sheets.items():
        sheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
    workbook.save(path)
    return path


def cell_array(names: Sequence[str], *, column: bool) -> np.ndarray:
    """A MATLAB cell array of strings."""
    cells = np.empty((len(names), 1) if column else (1, len(names)), dtype=object)
    cells.ravel()[:] = names
    return cells


def truncate(path: Path) -> None:
    """Cuts off the end of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])


def replace(path: Path, old: str, new: str) -> None:
    """Changes a text in a file that holds it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_biq2021(root: Path) -> None:
    """Twenty training and four test images, with all the warts of the repository."""
    training = [f"ss01 ({i}).jpg" for i in range(1, 20)] + ["ss02 (1014).jpg"]
    test = [f"ss03 ({i}).jpg" for i in range(1, 5)]
    for name in training + test:
        write_image(root / "Images" / name)
    (root / "Images" / "ss02 (1014).jpg").rename(root / "Images" / "ss02 (1014).JPG")
    exif = PIL.Image.Exif()
    exif[PIL.Image.ExifTags.Base.Orientation] = 6
    write_image(root / "Images" / "ss01 (3).jpg", exif=exif)
    frames = [PIL.Image.new("RGB", (24, 16), colour) for colour in ("red", "blue")]
    frames[0].save(root / "Images" / "ss01 (2).jpg", format="MPO", save_all=True, append_images=frames[1:])
    rows = [(name, f"{0.04 * i:.4f}", "", "") for i, name in enumerate(training)]
    write_csv(root / "Train (Images and MOS).csv", ("Image Name", "MOS", "", ""), rows)
    rows = [(name, f"{0.3 * i:.4f}") for i, name in enumerate(test)]
    write_csv(root / "Test (Images and MOS).csv", ("Image Name", "MOS"), rows)


def write_koniq10k(root: Path) -> None:
    """Eight training, two validation and three test images, in the larger size."""
    parts = ["training"] * 8 + ["validation"] * 2 + ["test"] * 3
    rows = []
    for i, part in enumerate(parts):
        name = f"{10004473376 + i}.jpg"
        write_image(root / "1024x768" / name)
        rows.append((name, 0, 0, 25, 73, 7, 105, 78.08 - 5 * i, 0.527278, part))
    header = ("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set")
    write_csv(root / "koniq10k_distributions_sets.csv", header, rows)


def write_livec(root: Path) -> None:
    """The seven practice images and twelve others."""
    practice = [f"t{i}.bmp" for i in range(1, 8)]
    names = ["3.bmp", *(f"{i}.JPG" for i in range(700, 706)), *(f"{i}.bmp" for i in range(1160, 1165))]
    for name in practice:
        write_image(root / "Images" / "trainingImages" / name)
    for name in names:
        write_image(root / "Images" / name)
    count = len(practice + names)
    data = root / "Data"
    data.mkdir()
    scipy.io.savemat(data / "AllImages_release.mat", {"AllImages_release": cell_array(practice + names, column=True)})
    scipy.io.savemat(data / "AllMOS_release.mat", {"AllMOS_release": np.linspace(5.0, 92.0, count)[None]})
    scipy.io.savemat(data / "AllStdDev_release.mat", {"AllStdDev_release": np.linspace(10.0, 28.0, count)[None]})


def write_spaq(root: Path) -> None:
    """Twelve images and the workbook with their scores."""
    rows: list[Sequence[object]] = [("Image name", "MOS", "Brightness", "Colorfulness", "Contrast")]
    for i in range(1, 13):
        name = f"{i:05d}.jpg"
        write_image(root / "TestImage" / name)
        rows.append((name, 7.5 * i, 50, 51.2, 48))
    write_xlsx(root / "Annotations" / "MOS and Image attribute scores.xlsx", {"Sheet1": rows})


def write_flive(root: Path) -> None:
    """Eight training, two validation and two test images from two sources."""
    database = root / "database"
    training = [f"voc_emotic_ava/JPEGImages__2008_00000{i}.jpg" for i in range(8)]
    validation = ["blur_dataset/motion0044.jpg", "blur_dataset/out_of_focus0059.jpg"]
    test = ["voc_emotic_ava/AVA__954182.jpg", "voc_emotic_ava/AVA__871768.JPG"]
    names = [*test, *training, *validation]
    for name in names:
        write_image(database / name)
    write_csv(database / "labels_image.csv", ("name", "mos"), [(name, 60 + i) for i, name in enumerate(names)])
    write_csv(database / "labels640.csv", ("mos_image", "name_image"), [(60, name) for name in test])
    rows = [(name, name in validation) for name in training + validation]
    write_csv(database / "labels=640_padded.csv", ("name_image", "is_valid"), rows)


def write_kadid10k(root: Path) -> None:
    """Ten pristine images with two distortions at two levels each."""
    rows = []
    for reference in range(1, 11):
        write_image(root / "images" / f"I{reference:02d}.png")
        for distortion in (1, 25):
            for level in (1, 5):
                name = f"I{reference:02d}_{distortion:02d}_{level:02d}.png"
                write_image(root / "images" / name)
                rows.append((name, f"I{reference:02d}.png", f"{5 - 0.75 * level:.2f}", 0.496))
    write_csv(root / "dmos.csv", ("dist_img", "ref_img", "dmos", "var"), rows)


def write_tid2013(root: Path) -> None:
    """Ten pristine images with two distortions; the names' case changes as in the release."""
    labels, deviations = [], []
    for reference in [*range(1, 10), 25]:
        for distortion in (1, 24):
            name = f"{'i' if reference == 9 else 'I'}{reference:02d}_{distortion:02d}_1.bmp"
            write_image(root / "distorted_images" / (name.lower() if reference == 25 else name))
            labels.append(f"{5.51429 - 0.1 * reference:.5f} {name}")
            deviations.append("0.13013")
    (root / "mos_with_names.txt").write_text("\r\n".join(labels) + "\r\n")
    (root / "mos_std.txt").write_text("\r\n".join(deviations) + "\r\n")


def write_csiq(root: Path) -> None:
    """Ten pristine images with three distortions; the table begins in the fourth row and column."""
    rows: list[Sequence[object]] = [(), ("CSIQ",), (None, None, None, "all by image")]
    rows.append((None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"))
    for image in [1600, "boston", *(f"scene{i}" for i in range(8))]:
        write_image(root / "src_imgs" / f"{image}.png")
        for index, (kind, folder, suffix) in enumerate(
            [("noise", "awgn", "AWGN"), ("jpeg 2000", "jpeg2000", "jpeg2000"), ("contrast", "contrast", "contrast")]
        ):
            write_image(root / "dst_imgs" / folder / f"{image}.{suffix}.1.png")
            rows.append((None, None, None, image, index + 1, kind, 1, 0.05, 0.062 + 0.1 * index))
    write_xlsx(root / "csiq.DMOS.xlsx", {"imagesets": [("images",), ("boston",)], "all_by_image": rows})


LIVE_COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live_reference(folder: str, number: int) -> str:
    return f"scene{(4 * list(LIVE_COUNTS).index(folder) + number) % 10}.bmp"


def write_live(root: Path) -> None:
    """All of the label files, but all of the images are pristine copies except for four in each folder."""
    names = [(folder, number) for folder, count in LIVE_COUNTS.items() for number in range(1, count + 1)]
    distorted = [number <= 4 for _, number in names]
    for (folder, number), kept in zip(names, distorted, strict=True):
        if kept:
            write_image(root / folder / f"img{number}.bmp")
    references = [live_reference(folder, number) for folder, number in names]
    scores = np.where(distorted, np.linspace(-2.6, 111.7, len(names)), 0.0)
    scipy.io.savemat(
        root / "dmos_realigned.mat", {"dmos_new": scores[None], "orgs": np.logical_not(distorted)[None].astype(float)}
    )
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": cell_array(references, column=False)})


def write_cid2013(root: Path) -> None:
    """Six image sets, of four scenes each, from two cameras."""
    rows: list[Sequence[object]] = [("Image", "Image set", "MOS", "Realigned MOS")]
    for index, numeral in enumerate(("I", "II", "III", "IV", "V", "VI"), start=1):
        for scene in range(index, index + 3):
            for device in (1, 2):
                name = f"IS_{numeral}_C{scene:02d}_D{device:02d}"
                write_image(root / f"IS{index}" / f"co{scene}" / f"{name}.jpg")
                rows.append((name, index, 50, 10 * scene - 8 * device))
    write_xlsx(root / "CID2013 data - version 12112014.xlsx", {"Observers": [("Age",), (27,)], "CID2013 MOS": rows})


def write_folder(root: Path) -> None:
    """Twelve images of a user's own, some in a subfolder."""
    names = [f"{'holiday/' if i % 2 else ''}photo {i}.{'png' if i % 3 else 'jpg'}" for i in range(12)]
    for name in names:
        write_image(root / name)
    write_csv(root / "scores.csv", ("File_Name", "MOS"), [(name, i / 12) for i, name in enumerate(names)])


# By name: what writes the fixture, and how many rated images it has.
LAYOUTS: dict[str, tuple[Callable[[Path], None], int]] = {
    "biq2021": (write_biq2021, 24),
    "cid2013": (write_cid2013, 36),
    "csiq": (write_csiq, 30),
    "flive": (write_flive, 12),
    "folder": (write_folder, 12),
    "kadid10k": (write_kadid10k, 40),
    "koniq10k": (write_koniq10k, 13),
    "live": (write_live, 20),
    "livec": (write_livec, 12),
    "spaq": (write_spaq, 12),
    "tid2013": (write_tid2013, 20),
}


def noise(height: int, width: int, seed: int = 0) -> PIL.Image.Image:
    """A photograph that is all noise, so that each window of it differs from all others."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))
