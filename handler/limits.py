"""Every limit on what strangers may send and on how long it may take; a test compares the files that must agree with it."""

MAX_BODY = 10_485_760  # bytes of a request: config.properties, nginx.conf and the page say the same
MAX_PIXELS = 50_000_000  # of one photo, at training as well; MOST_SECONDS allows fewer in some formats
MAX_INSTANCES = 32  # photos in one request; MOST_SECONDS allows fewer large ones
MAX_NUMBERS = 1_000_000  # numbers and lists in one request's JSON: 499x499 pixels

# What reading costs is estimated by handler/cost.py before a pixel is decoded, in seconds of one core
MOST_SECONDS = 1.0  # for one photo, for one request, and for the dear requests of one batch
DEAR_SECONDS = 0.1  # a request that costs more gives way to cheaper ones
SHARED_SECONDS = 0.3  # for all requests of a batch that holds cheap ones

# A request is answered within 15 seconds: it waits at most WAIT_SECONDS, and its batch takes at most RESPONSE_SECONDS
WAIT_SECONDS = 6.0  # what may have waited longer is refused
READ_SECONDS = 1.5  # for reading all photos of a batch; the rest of it is refused
FETCH_SECONDS = 2.0  # for all photos of a batch that lie at addresses
FETCHES = 8  # photos at addresses that one worker waits for
RESPONSE_SECONDS = 5  # then TorchServe kills the worker (responseTimeout in model-config.yaml)
QUEUE = 100  # requests that wait (jobQueueSize in model-config.yaml); TorchServe refuses more
