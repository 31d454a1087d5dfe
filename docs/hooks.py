"""Links from docs/ to other files of the repository, on GitHub and on the site.

A page links to `../results/digits.csv`, which GitHub follows as it is. For the site,
Markdown files become pages and other files are copied, each at its path in the
repository. A file that is missing fails the strict build.
"""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
OUT = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")  # of docs/
INTO = re.compile(r"(?<=\]\()docs/")  # from files in the root


def on_files(files, config):
    """Adds the files that the pages link to."""
    texts = [page.content_string for page in files.documentation_pages()]
    for path in sorted({path for text in texts for path in OUT.findall(text)}):
        if (ROOT / path).is_file():
            source = str(ROOT / path)
            files.append(File.generated(config, path, abs_src_path=source))
    return files


def on_page_markdown(markdown, page, config, files):
    """Makes the links relative to docs/, where MkDocs looks for them."""
    return INTO.sub("", OUT.sub(r"\1", markdown))
