"""Packaging. Every fact is read from settings.ini, the one place where it is written."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

parser = ConfigParser(delimiters=["="])
parser.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
cfg = parser["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    packages=["synthmed_nb", "synthmed_nb.templates", "synthmed_nb.data"],
    package_data={
        "synthmed_nb.templates": ["*.ipynb", "html/*"],
        "synthmed_nb.data": ["*"],
    },
    install_requires=cfg["requirements"].split(),
    extras_require={  # "sql" of "sql_requirements", and so on
        key.removesuffix("_requirements"): words.split()
        for key, words in cfg.items()
        if key.endswith("_requirements")
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split("\n"),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
)
