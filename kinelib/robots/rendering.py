"""Drawing a MuJoCo scene without a screen: colours, or the object and the depth behind every pixel.

Two libraries draw headless on Linux: EGL (a graphics driver, or Mesa in software) and OSMesa (always in software; equally
fast there). MUJOCO_GL=egl|osmesa chooses; otherwise EGL where it answers, else OSMesa. A process holds one renderer: with
two of OSMesa alive, pictures come out as garbage, so opening one for another model closes the one before.

What a frame costs is the number of triangles, hardly that of pixels: shadows, reflections and multisampling are off (a tenth
of the time with Meta-World), and pictures are smoothed by drawing them at twice the size.

Shapes: picture (S, S, 3) uint8; objects (S, S) int32, depth (S, S) float32 metres along the camera's axis; row 0 on top.
"""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import importlib
import importlib.util
import os
import sys

import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 1024  # pixels of the largest picture; small ones are drawn at twice their size
INSTALL = (
    "Install one of the two software renderers, for example on Debian or Ubuntu: apt-get install libosmesa6, or "
    "apt-get install libegl1 libgl1-mesa-dri; MUJOCO_GL=osmesa or MUJOCO_GL=egl chooses between them."
)


class RendererError(RuntimeError):
    """There is no way to draw on this machine; the message says what to install."""


def choose_backend() -> str:
    """The library that draws here: "egl" or "osmesa" on Linux, the system's own elsewhere.

    Raises:
        RendererError: when there is none, or MUJOCO_GL asks for another.
    """
    if sys.platform != "linux":
        return "cgl" if sys.platform == "darwin" else "glfw"
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    available = [name for name, there in (("egl", _egl_answers), ("osmesa", _osmesa_is_there)) if there()]
    if wanted and wanted not in ("egl", "osmesa"):
        raise RendererError(
            f"MUJOCO_GL={wanted} cannot draw without a screen here; unset it, or use egl or osmesa. {INSTALL}"
        )
    if wanted and wanted not in available:
        raise RendererError(f"MUJOCO_GL={wanted}, but that library was not found or has no device. {INSTALL}")
    if not available:
        raise RendererError(f"no headless renderer was found: neither EGL nor OSMesa. {INSTALL}")
    return wanted or available[0]


def import_mujoco():
    """The mujoco package, imported so that it looks for no screen and works, without pictures, where there is no renderer.

    Raises:
        RendererError: when it is not installed.
    """
    if "mujoco" not in sys.modules and sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        if importlib.util.find_spec("mujoco") is None:
            raise RendererError("mujoco is not installed; run: make install (or: pip install mujoco==3.3.0)")
        try:
            os.environ["MUJOCO_GL"] = choose_backend()
        except RendererError:
            # MuJoCo would try to open a window; physics needs none, and whoever draws is told by choose_backend.
            os.environ["MUJOCO_GL"] = "disabled"
            try:
                return importlib.import_module("mujoco")
            finally:
                del os.environ["MUJOCO_GL"]
    try:
        return importlib.import_module("mujoco")
    except ImportError as error:
        raise RendererError(
            f"mujoco cannot be imported ({error}); run: make install (or: pip install mujoco==3.3.0)"
        ) from error


def renderer_for(model) -> Renderer:
    """The renderer of this process, opened for `model`; one that is open for another model is closed."""
    global _open
    # After a fork the parent's context is not ours to use or to free.
    if _open is not None and (_open.process != os.getpid() or _open.model is not model):
        if _open.process == os.getpid():
            _open.close()
        _open = None
    if _open is None:
        _open = Renderer(model)
        # Registered after MuJoCo's EGL module registered its own, and so called before that ends the display.
        atexit.unregister(close_renderer)
        atexit.register(close_renderer)
    return _open


def close_renderer(model=None) -> None:
    """Closes this process's renderer, if there is one (and it is that of `model`, where one is given)."""
    global _open
    if _open is not None and _open.process == os.getpid() and (model is None or _open.model is model):
        _open.close()
        _open = None


_open: Renderer | None = None


class Renderer:
    """Draws one model; ask :func:`renderer_for` for it.

    Raises:
        RendererError: when the machine cannot draw.
    """

    def __init__(self, model) -> None:
        mujoco = import_mujoco()
        backend = choose_backend()
        self.process, self.model, self._mujoco = os.getpid(), model, mujoco
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = MAX_SIDE
        try:
            self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(MAX_SIDE, MAX_SIDE)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # the libraries raise whatever they like, ctypes and OpenGL errors among it
            raise RendererError(f"drawing with {backend} failed: {error}. {INSTALL}") from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene, self._options = mujoco.MjvScene(model, maxgeom=4000), mujoco.MjvOption()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0

    def picture(self, data, camera, side: int) -> NDArray[np.uint8]:
        """Draws (side, side, 3) colours of `data` through an MjvCamera."""
        import cv2

        factor = 2 if 2 * side <= MAX_SIDE else 1
        colours, _ = self._draw(data, camera, side * factor, segments=False)
        return cv2.resize(colours, (side, side), interpolation=cv2.INTER_AREA) if factor > 1 else colours

    def surfaces(self, data, camera, side: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """What lies behind the centre of every pixel.

        Returns:
            objects (side, side): a geom's number, the number of geoms plus a site's, or -1 for nothing (the sky);
            depth (side, side): metres along the camera's axis.
        """
        colours, closeness = self._draw(data, camera, side, segments=True)
        numbers = colours.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        kinds, table = self._mujoco.mjtObj, np.full(self._scene.ngeom + 1, -1, np.int32)
        first = {int(kinds.mjOBJ_GEOM): 0, int(kinds.mjOBJ_SITE): self.model.ngeom}
        for drawn in self._scene.geoms[: self._scene.ngeom]:
            if drawn.segid >= 0 and drawn.objtype in first:
                table[drawn.segid + 1] = first[drawn.objtype] + drawn.objid
        near, far = (share * self.model.stat.extent for share in (self.model.vis.map.znear, self.model.vis.map.zfar))
        depth = near * far / (near + closeness.astype(np.float64) * (far - near))
        return table[numbers], depth.astype(np.float32)

    def close(self) -> None:
        """Frees the context; drawing is over."""
        self._context.free()
        self._gl.free()

    def _draw(self, data, camera, side: int, *, segments: bool):
        mujoco = self._mujoco
        if not 1 <= side <= MAX_SIDE:
            raise ValueError(f"a picture has a side of 1 to {MAX_SIDE} pixels; got {side}.")
        self._gl.make_current()
        mujoco.mjv_updateScene(self.model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR):
            self._scene.flags[flag] = segments
        frame = mujoco.MjrRect(0, 0, side, side)
        mujoco.mjr_render(frame, self._scene, self._context)
        colours = np.empty((side, side, 3), np.uint8)
        closeness = np.empty((side, side), np.float32) if segments else None
        mujoco.mjr_readPixels(colours, closeness, frame, self._context)
        # OpenGL counts rows from below.
        return colours[::-1].copy(), None if closeness is None else closeness[::-1].copy()


def _egl_answers() -> bool:
    """Whether libEGL is there and knows a device; asked without PyOpenGL, which cannot change its mind afterwards."""
    name = ctypes.util.find_library("EGL")
    if not name:
        return False
    library, count = ctypes.CDLL(name), ctypes.c_int(0)
    library.eglGetProcAddress.restype = ctypes.c_void_p
    address = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return False
    ask = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    return bool(ask(0, None, ctypes.byref(count))) and count.value > 0


def _osmesa_is_there() -> bool:
    return ctypes.util.find_library("OSMesa") is not None
