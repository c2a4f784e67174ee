from halve.assembly import distill as distill
from halve.assembly import open_run as open_run
from halve.assembly import optimize as optimize
from halve.assembly import profile as profile
from halve.assembly import prune as prune
from halve.assembly import quantize as quantize
from halve.assembly import serve as serve

__version__: str
