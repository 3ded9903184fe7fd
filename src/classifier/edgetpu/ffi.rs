//! TFLite's C library and a delegate, loaded when asked for: the only calls into foreign code of this backend. Called in
//! the accelerator's own process alone, which may hang or die in them ([`super::worker`]).
//!
//! Fewer than thirty functions of a C interface that has not changed since TFLite 2.12. A crate that wraps them brings the rest
//! of that library's interface, its file format and a downloader along; here every `unsafe` is on a page.

#![allow(unsafe_code)] // Calls into libraries that are loaded when the program runs.

use super::wire::Job;
use crate::bundle::Output;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// The least version of TFLite: the first with the interface that today's delegates are written for.
const LEAST: (u32, u32) = (2, 12);

/// `kTfLiteOk`, `kTfLiteInt8`.
const OK: c_int = 0;
const INT8: c_int = 9;

/// What the libraries said last, newest at the end.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How many of their messages are kept, and how many letters of each.
const MESSAGES: usize = 4;
const LETTERS: usize = 300;

/// TFLite's own types, of which only addresses are known here.
type Opaque = c_void;

/// `TfLiteQuantizationParams`.
#[repr(C)]
struct Quantization {
    scale: f32,
    zero_point: i32,
}

type ErrorReporter = extern "C" fn(*mut c_void, *const c_char, *mut c_void);
type DelegateReporter = extern "C" fn(*const c_char);

/// The functions of TFLite that are used.
#[derive(Clone, Copy)]
struct Api {
    model_create: unsafe extern "C" fn(*const c_void, usize) -> *mut Opaque,
    model_delete: unsafe extern "C" fn(*mut Opaque),
    options_create: unsafe extern "C" fn() -> *mut Opaque,
    options_delete: unsafe extern "C" fn(*mut Opaque),
    options_set_threads: unsafe extern "C" fn(*mut Opaque, i32),
    options_add_delegate: unsafe extern "C" fn(*mut Opaque, *mut Opaque),
    options_set_reporter: unsafe extern "C" fn(*mut Opaque, ErrorReporter, *mut c_void),
    create: unsafe extern "C" fn(*const Opaque, *const Opaque) -> *mut Opaque,
    delete: unsafe extern "C" fn(*mut Opaque),
    allocate: unsafe extern "C" fn(*mut Opaque) -> c_int,
    invoke: unsafe extern "C" fn(*mut Opaque) -> c_int,
    inputs: unsafe extern "C" fn(*const Opaque) -> i32,
    input: unsafe extern "C" fn(*const Opaque, i32) -> *mut Opaque,
    outputs: unsafe extern "C" fn(*const Opaque) -> i32,
    output: unsafe extern "C" fn(*const Opaque, i32) -> *const Opaque,
    tensor_type: unsafe extern "C" fn(*const Opaque) -> c_int,
    dimensions: unsafe extern "C" fn(*const Opaque) -> i32,
    dimension: unsafe extern "C" fn(*const Opaque, i32) -> i32,
    quantization: unsafe extern "C" fn(*const Opaque) -> Quantization,
    copy_in: unsafe extern "C" fn(*mut Opaque, *const c_void, usize) -> c_int,
    copy_out: unsafe extern "C" fn(*const Opaque, *mut c_void, usize) -> c_int,
}

/// The delegate's two functions.
#[derive(Clone, Copy)]
struct Plugin {
    create: unsafe extern "C" fn(*const *const c_char, *const *const c_char, usize, DelegateReporter) -> *mut Opaque,
    destroy: unsafe extern "C" fn(*mut Opaque),
}

/// A model on an interpreter with a delegate.
pub(super) struct Interpreter {
    api: Api,
    plugin: Plugin,
    version: String,
    interpreter: NonNull<Opaque>,
    delegate: NonNull<Opaque>,
    model: NonNull<Opaque>,
    /// What the model was made of, which it goes on reading.
    _bytes: Vec<u8>,
    image: usize,
    /// The numbers of evidence map and features among the outputs, and how many bytes they have.
    evidence: (i32, usize),
    features: (i32, usize),
}

impl Interpreter {
    /// Loads both libraries, makes the delegate and prepares the model with it.
    pub(super) fn new(job: &Job, bytes: Vec<u8>) -> Result<Self, String> {
        let library = load(&job.library)?;
        let version = version(&library, &job.library)?;
        let api = Api::of(&library).map_err(|symbol| lacks(&job.library, symbol, &version))?;
        let driver = load(&job.delegate)?;
        let plugin = Plugin::of(&driver).map_err(|symbol| lacks(&job.delegate, symbol, "no TFLite delegate"))?;
        // Loaded for as long as the process lives: threads of theirs may run on.
        std::mem::forget((library, driver));
        let delegate = plugin.make(job)?;

        // SAFETY: the bytes are not moved or changed while the model lives, which is deleted before them.
        let model = NonNull::new(unsafe { (api.model_create)(bytes.as_ptr().cast(), bytes.len()) });
        let model = model.ok_or_else(|| told("TFLite cannot read the model"))?;
        // SAFETY: takes nothing.
        let options = NonNull::new(unsafe { (api.options_create)() });
        let options = options.ok_or("TFLite has no memory for its options")?;
        // SAFETY: options and delegate were made by these libraries just now and are not deleted; `note` has the type that
        // TFLite asks for and needs no user data.
        unsafe {
            (api.options_set_threads)(options.as_ptr(), i32::try_from(job.threads).unwrap_or(1));
            (api.options_add_delegate)(options.as_ptr(), delegate.as_ptr());
            (api.options_set_reporter)(options.as_ptr(), note, std::ptr::null_mut());
        }
        // SAFETY: model and options live; the interpreter copies the options.
        let interpreter = NonNull::new(unsafe { (api.create)(model.as_ptr(), options.as_ptr()) });
        // SAFETY: not used any more.
        unsafe { (api.options_delete)(options.as_ptr()) };
        let interpreter = interpreter.ok_or_else(|| told("TFLite cannot run the model with this delegate"))?;
        let mut made = Self {
            api,
            plugin,
            version,
            interpreter,
            delegate,
            model,
            _bytes: bytes,
            image: job.size * job.size,
            evidence: (0, 0),
            features: (0, 0),
        };
        // SAFETY: the interpreter lives; this thread alone calls it.
        if unsafe { (made.api.allocate)(made.interpreter.as_ptr()) } != OK {
            return Err(told("TFLite and the delegate could not prepare the model"));
        }
        made.find_tensors(job)?;
        Ok(made)
    }

    /// TFLite's version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Runs the network on one image: evidence map and features, all in u8.
    pub(super) fn run(&mut self, image: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        if image.len() != self.image {
            return Err(format!("an image of {} bytes, and the model reads {}", image.len(), self.image));
        }
        let signed: Vec<u8> = image.iter().map(|grey| grey ^ 0x80).collect();
        // SAFETY: the interpreter lives and has an input (`find_tensors`); TFLite checks the length and copies.
        let copied = unsafe {
            let input = (self.api.input)(self.interpreter.as_ptr(), 0);
            (self.api.copy_in)(input, signed.as_ptr().cast(), signed.len())
        };
        if copied != OK {
            return Err(told("TFLite does not take the image"));
        }
        // SAFETY: the interpreter lives and is prepared; this thread alone calls it.
        if unsafe { (self.api.invoke)(self.interpreter.as_ptr()) } != OK {
            return Err(told("the inference failed"));
        }
        Ok((self.read(self.evidence)?, self.read(self.features)?))
    }

    fn read(&self, (number, length): (i32, usize)) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0u8; length];
        // SAFETY: the interpreter lives and has this output; TFLite checks the length and writes no more than it.
        let copied = unsafe {
            let output = (self.api.output)(self.interpreter.as_ptr(), number);
            (self.api.copy_out)(output, bytes.as_mut_ptr().cast(), length)
        };
        if copied != OK {
            return Err(told("TFLite does not give the outputs"));
        }
        bytes.iter_mut().for_each(|q| *q ^= 0x80);
        Ok(bytes)
    }

    /// Looks whether inputs and outputs are the bundle's, and which output is which.
    fn find_tensors(&mut self, job: &Job) -> Result<(), String> {
        // SAFETY: the interpreter lives.
        let (inputs, outputs) =
            unsafe { ((self.api.inputs)(self.interpreter.as_ptr()), (self.api.outputs)(self.interpreter.as_ptr())) };
        if (inputs, outputs) != (1, 2) {
            return Err(format!("the model has {inputs} inputs and {outputs} outputs, the bundle's has 1 and 2"));
        }
        // SAFETY: there is an input of this number.
        let input = unsafe { (self.api.input)(self.interpreter.as_ptr(), 0) };
        let expected = [1, job.size, job.size, 1];
        if self.described(input) != Some((INT8, expected)) {
            return Err(format!("the model's input is not an int8 image of {expected:?}"));
        }
        for (name, output) in [("evidence", &job.outputs.evidence), ("features", &job.outputs.features)] {
            // Where both have one shape they come in this order, as roentgen-host writes them.
            let first = i32::from(name == "features");
            let number = [first, 1 - first].into_iter().find(|&number| self.is_output(number, output));
            let number = number.ok_or_else(|| format!("no output of the model is the bundle's {name}"))?;
            let length = output.rows * output.columns * output.channels;
            *(if name == "evidence" { &mut self.evidence } else { &mut self.features }) = (number, length);
        }
        Ok(())
    }

    /// Whether the output of this number has the shape and the scale that the bundle says.
    fn is_output(&self, number: i32, output: &Output) -> bool {
        // SAFETY: the interpreter lives and has two outputs.
        let tensor = unsafe { (self.api.output)(self.interpreter.as_ptr(), number) };
        if self.described(tensor) != Some((INT8, [1, output.rows, output.columns, output.channels])) {
            return false;
        }
        // SAFETY: `described` has seen that it is no null pointer.
        let found = unsafe { (self.api.quantization)(tensor) };
        found.zero_point == i32::from(output.zero_point) - 128
            && (found.scale - output.scale).abs() <= output.scale * 1e-6
    }

    /// Type and shape of a tensor of four dimensions.
    fn described(&self, tensor: *const Opaque) -> Option<(c_int, [usize; 4])> {
        // SAFETY: the tensor is the interpreter's, which lives, or null, which is seen before anything is asked of it.
        unsafe {
            if tensor.is_null() || (self.api.dimensions)(tensor) != 4 {
                return None;
            }
            let extents = [0, 1, 2, 3].map(|i| usize::try_from((self.api.dimension)(tensor, i)).unwrap_or(0));
            Some(((self.api.tensor_type)(tensor), extents))
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // SAFETY: each was made by these libraries and is deleted once, after what uses it.
        unsafe {
            (self.api.delete)(self.interpreter.as_ptr());
            (self.plugin.destroy)(self.delegate.as_ptr());
            (self.api.model_delete)(self.model.as_ptr());
        }
    }
}

impl Api {
    fn of(library: &Library) -> Result<Self, &'static str> {
        Ok(Self {
            model_create: symbol(library, "TfLiteModelCreate")?,
            model_delete: symbol(library, "TfLiteModelDelete")?,
            options_create: symbol(library, "TfLiteInterpreterOptionsCreate")?,
            options_delete: symbol(library, "TfLiteInterpreterOptionsDelete")?,
            options_set_threads: symbol(library, "TfLiteInterpreterOptionsSetNumThreads")?,
            options_add_delegate: symbol(library, "TfLiteInterpreterOptionsAddDelegate")?,
            options_set_reporter: symbol(library, "TfLiteInterpreterOptionsSetErrorReporter")?,
            create: symbol(library, "TfLiteInterpreterCreate")?,
            delete: symbol(library, "TfLiteInterpreterDelete")?,
            allocate: symbol(library, "TfLiteInterpreterAllocateTensors")?,
            invoke: symbol(library, "TfLiteInterpreterInvoke")?,
            inputs: symbol(library, "TfLiteInterpreterGetInputTensorCount")?,
            input: symbol(library, "TfLiteInterpreterGetInputTensor")?,
            outputs: symbol(library, "TfLiteInterpreterGetOutputTensorCount")?,
            output: symbol(library, "TfLiteInterpreterGetOutputTensor")?,
            tensor_type: symbol(library, "TfLiteTensorType")?,
            dimensions: symbol(library, "TfLiteTensorNumDims")?,
            dimension: symbol(library, "TfLiteTensorDim")?,
            quantization: symbol(library, "TfLiteTensorQuantizationParams")?,
            copy_in: symbol(library, "TfLiteTensorCopyFromBuffer")?,
            copy_out: symbol(library, "TfLiteTensorCopyToBuffer")?,
        })
    }
}

impl Plugin {
    fn of(library: &Library) -> Result<Self, &'static str> {
        Ok(Self {
            create: symbol(library, "tflite_plugin_create_delegate")?,
            destroy: symbol(library, "tflite_plugin_destroy_delegate")?,
        })
    }

    /// Makes the delegate, which opens the device.
    fn make(&self, job: &Job) -> Result<NonNull<Opaque>, String> {
        let text =
            |text: &String| CString::new(text.as_str()).map_err(|_| "an option of the delegate holds a zero byte");
        let keys = job.options.keys().map(text).collect::<Result<Vec<_>, _>>()?;
        let values = job.options.values().map(text).collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (keys_at, values_at) = (pointers(&keys), pointers(&values));
        // SAFETY: both lists hold as many texts as is said, all of which outlive the call; `report` has the type that
        // delegates ask for.
        let made = unsafe { (self.create)(keys_at.as_ptr(), values_at.as_ptr(), keys.len(), report) };
        NonNull::new(made)
            .ok_or_else(|| told("the delegate refuses to work: is the device there, free, and for this user?"))
    }
}

/// Loads a library; all that it needs must be there.
fn load(path: &Path) -> Result<Library, String> {
    // SAFETY: running a library's initializers is what loading it is for; the configuration names it by a whole path.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        format!("{} cannot be loaded: {}", path.display(), readable(&text))
    })
}

/// A function of a library, as this type; where there is none its name.
fn symbol<T: Copy>(library: &Library, name: &'static str) -> Result<T, &'static str> {
    // SAFETY: the callers name the type that TFLite's headers give the function of this name.
    unsafe { library.get::<T>(name.as_bytes()) }.map(|found| *found).map_err(|_| name)
}

fn lacks(path: &Path, symbol: &str, what: &str) -> String {
    format!("{} has no {symbol}: it is another library than is needed ({what})", path.display())
}

/// TFLite's version, if it will do.
fn version(library: &Library, path: &Path) -> Result<String, String> {
    let ask: unsafe extern "C" fn() -> *const c_char =
        symbol(library, "TfLiteVersion").map_err(|symbol| lacks(path, symbol, "not TFLite's C library"))?;
    // SAFETY: takes nothing and gives a text that stays.
    let version = unsafe { ask().as_ref().map(|text| readable(&CStr::from_ptr(text).to_string_lossy())) };
    let version = version.unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < LEAST {
        let (major, minor) = LEAST;
        return Err(format!("{} is version {version:?}: {major}.{minor} or later is needed", path.display()));
    }
    Ok(version)
}

/// What went wrong, with what the libraries said of it.
fn told(what: &str) -> String {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_empty() { what.to_owned() } else { format!("{what} ({})", said.join("; ")) }
}

fn remember(text: &CStr) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() == MESSAGES {
        said.remove(0);
    }
    said.push(readable(&text.to_string_lossy()));
}

/// On one line, and not too long.
fn readable(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.trim().chars().map(plain).take(LETTERS).collect()
}

/// What a delegate calls with its errors.
extern "C" fn report(message: *const c_char) {
    if !message.is_null() {
        // SAFETY: not null, and a text by the delegate's interface; it is copied before it can go.
        remember(unsafe { CStr::from_ptr(message) });
    }
}

unsafe extern "C" {
    fn vsnprintf(text: *mut c_char, size: usize, format: *const c_char, arguments: *mut c_void) -> c_int;
}

/// What TFLite calls with its errors: a format and its arguments, a `va_list`, which is handed to functions as an address on
/// the processors that a box has.
extern "C" fn note(_: *mut c_void, format: *const c_char, arguments: *mut c_void) {
    let mut text = [0u8; LETTERS + 1];
    if !format.is_null() {
        // SAFETY: format and arguments are those that TFLite would print; as many bytes are written as there are, the
        // last of them zero.
        unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, arguments) };
    }
    if let Ok(text) = CStr::from_bytes_until_nul(&text) {
        remember(text);
    }
}
