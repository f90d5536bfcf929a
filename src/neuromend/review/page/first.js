/** What the page asks for before its own code is all there: the session, and the scan that will be shown. */

import { get, volumeBytes } from "./api.js";
import { remembered } from "./bus.js";

export const session = get("/api/session");
export const scan = session.then(({ scans }) => scans.find(({ id }) => id === remembered.get("scan")) ?? scans[0]);
export const bytes = scan.then((found) => found && volumeBytes(found.id));

for (const promise of [session, scan, bytes]) promise.catch(() => {}); // told of where it is waited for
